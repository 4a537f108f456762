"""Executions that an execution starts, and waits for: `run.spawn`, `run.gather`.

A child is created under an idempotency key made of the parent's id and the step's key, so that a crash between its
creation and the parent's checkpoint starts no second one. Its end comes as a signal, and is then read from the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from statestore.errors import InvalidRecord
from statestore.records import Action, AgentStep, Result, SignalKind, Wait, WaitKind
from statestore.states import AgentState
from worker.engine.attempt import Attempt
from worker.engine.failures import describe, revive
from worker.engine.family import SPAWN, ChildEnd, ChildOptions
from worker.engine.journal import MARK
from worker.errors import AgentsError, ChildFailed

_AT_ONCE: Final = 50
# The end of a child is signalled. Looking without a signal, this rarely, is for what nobody foresees.
_LOOK_ANYWAY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An execution that this one has started. `step` is the key of the step that did."""

    execution_id: str
    agent_id: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """A child as the code asks for it."""

    name: str
    agent: Any
    value: Any
    options: ChildOptions

    def take(self, attempt: Attempt, key: str) -> Child:
        """Starts the child, once."""
        action = Action(kind=SPAWN)
        recorded = attempt.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            return _child_of(key, recorded.result)
        with attempt.busy(is_new=True):
            attempt.begin_step(action)
            started = attempt.now()
            family = attempt.surroundings.family
            try:
                execution_id, agent_id = attempt.asking_store(
                    lambda: family.start(attempt, self.agent, self.value, key, self.options)
                )
            except (AgentsError, InvalidRecord) as error:
                result = Result(success=False, error=describe(error))
            else:
                result = Result(success=True, output={"execution_id": execution_id, "agent_id": agent_id})
            with attempt.lock:
                attempt.record(attempt.make_step(key, action, result, started=started))
        return _child_of(key, result)


def _child_of(key: str, result: Result) -> Child:
    if result.error is not None:
        raise revive(result.error)
    return Child(execution_id=result.output["execution_id"], agent_id=result.output["agent_id"], step=key)


def come_to_ends(attempt: Attempt, children: Sequence[Child]) -> list[str]:
    """The code has come to waiting for these: the keys of the steps that record their ends."""
    return [attempt.come_to(f"join {child.step.replace(MARK, ' ')}") for child in children]


def gather(attempt: Attempt, children: Sequence[Child], keys: Sequence[str], *, return_exceptions: bool) -> list[Any]:
    """The outputs of the children, in their order, when all of them are over; unwinds the agent until then.

    Each end is recorded as a step. Raises the first child's `ChildFailed` in their order, or returns them among the
    outputs.
    """
    joins = [_Join.look_up(attempt, child, key) for child, key in zip(children, keys, strict=True)]
    missing = [join for join in joins if join.recorded is None]
    if missing:
        _collect(attempt, missing)
    still_missing = [join for join in missing if not attempt.journal.has(join.key)]
    if still_missing:
        first = still_missing[0]
        attempt.enter_wait()
        # The first one alone: while it goes on, whatever the others do wakes nobody.
        attempt.pause(
            AgentState.WAITING,
            Wait(
                kind=WaitKind.CHILD,
                key=first.child.execution_id,
                asked_at=(now := attempt.now()),
                wake_at=now + _LOOK_ANYWAY,
            ),
        )
    outputs: list[Any] = []
    for join in joins:
        result = join.result(attempt)
        if result.error is None:
            outputs.append(result.output)
        elif return_exceptions:
            outputs.append(revive(result.error))
        else:
            raise revive(result.error)
    return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Join:
    child: Child
    action: Action
    key: str
    recorded: AgentStep | None

    @classmethod
    def look_up(cls, attempt: Attempt, child: Child, key: str) -> "_Join":
        action = Action(kind="child", input=child.execution_id)
        return cls(child=child, action=action, key=key, recorded=attempt.look_up(key, action))

    def result(self, attempt: Attempt) -> Result:
        step = self.recorded or attempt.journal.step(self.key)
        assert step.result is not None
        return step.result


def _collect(attempt: Attempt, missing: Sequence[_Join]) -> None:
    """Records the ends of those children that are over by now."""
    attempt.enter_boundary()
    for join in missing:
        while attempt.take_signal(SignalKind.CHILD, join.child.execution_id) is not None:
            continue
    batch: list[tuple[_Join, Result]] = []
    for join in missing:
        end = attempt.asking_store(partial(attempt.surroundings.family.end_of, join.child.execution_id))
        if end is not None:
            batch.append((join, _result_of(join.child, end)))
        if len(batch) == _AT_ONCE:
            _record(attempt, batch)
            batch = []
    if batch:
        _record(attempt, batch)


def _record(attempt: Attempt, batch: Sequence[tuple[_Join, Result]]) -> None:
    with attempt.lock:
        now, first = attempt.now(), attempt.journal.next_number
        attempt.record_all(
            tuple(
                attempt.make_step(join.key, join.action, result, started=now, number=first + place)
                for place, (join, result) in enumerate(batch)
            )
        )


def _result_of(child: Child, end: ChildEnd) -> Result:
    if end.state is AgentState.COMPLETED:
        return Result(success=True, output=end.output)
    failed = ChildFailed(child.execution_id, child.agent_id, end.error_type, end.message)
    return Result(success=False, error=describe(failed))
