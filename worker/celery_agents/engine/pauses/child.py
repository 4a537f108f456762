"""Executions that an execution starts, and waits for: `run.spawn`, `run.gather`.

A child is created under an idempotency key made of the parent's id and the step's key, so that a crash between its
creation and the parent's checkpoint starts no second one. An intent is recorded before, so that a cancel of the parent
finds the child even then. Its end comes as a signal, and is then read from the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from agent_statestore.envelope import dump
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, AgentStep, ExecutionSummary, Result, SignalKind, Wait, WaitKind
from agent_statestore.states import AgentState
from celery_agents.define.names import MARK
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.limit import enter_wait
from celery_agents.engine.pauses.open_wait import Awaited, Ended, OpenWait
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.signal import Standing
from celery_agents.engine.pauses.wait import conclude
from celery_agents.engine.relatives import SPAWN, ChildEnd, ChildOptions, name_of
from celery_agents.engine.steps.taking import begin_step
from celery_agents.errors import AgentsError, ChildFailed, JournalMismatch

_AT_ONCE: Final = 50
_MESSAGE: Final = 2_000
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
        action = Action(kind=SPAWN, input=name_of(self.agent))
        recorded = attempt.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            return _child_of(key, recorded.result)
        with attempt.course.busy(key):
            begin_step(attempt, key, action, is_new=recorded is None)
            started = attempt.now()
            try:
                # An intent of attempt 0 was taken over from another execution, whose child it meant.
                is_intended = recorded is not None and recorded.attempt > 0
                child = self._create(attempt, key, action, is_intended=is_intended)
            except JournalMismatch:
                raise  # the child goes on, and its intent must stay, by which a cancel finds it
            except (AgentsError, InvalidRecord) as error:
                result = Result(success=False, error=describe(error))
            else:
                result = Result(success=True, output={"execution_id": child.execution_id, "agent_id": child.agent_id})
            with attempt.course.lock:
                attempt.recorder.record(attempt.recorder.make_step(key, action, result, started=started))
            if result.success:
                attempt.ask_store(lambda: attempt.environment.relatives.announce(child, self.options))
        return _child_of(key, result)

    def _create(self, attempt: Attempt, key: str, action: Action, *, is_intended: bool) -> ExecutionSummary:
        relatives = attempt.environment.relatives
        wanted = attempt.ask_store(
            lambda: relatives.wanted(
                attempt.context, self.agent, self.value, key, self.options, attempt.limits.deadline
            )
        )
        if not is_intended:
            attempt.ask_store(lambda: relatives.count(attempt.context, wanted))
            with attempt.course.lock:
                attempt.recorder.record(attempt.recorder.make_step(key, action, None, started=attempt.now()))
        return attempt.ask_store(lambda: relatives.create(wanted, key))


def _child_of(key: str, result: Result) -> Child:
    if result.error is not None:
        raise revive(result.error)
    return Child(execution_id=result.output["execution_id"], agent_id=result.output["agent_id"], step=key)


def come_to_ends(attempt: Attempt, children: Sequence[Child]) -> list[str]:
    """The code has come to waiting for these: the keys of the steps that record their ends. Raises `TypeError`."""
    for child in children:
        check_child("gather", child)
    return [attempt.journal.come_to(_name_of_end(child), is_derived=True) for child in children]


def check_child(what: str, child: object) -> None:
    """Raise `TypeError` for anything but what `spawn` has returned."""
    if not isinstance(child, Child):
        raise TypeError(f"{what} takes what spawn has returned, one by one, and not {child!r:.80}")


def _name_of_end(child: Child) -> str:
    return f"join {child.step.replace(MARK, ' ')}"


def _wait_for(child: Child, since: datetime, now: datetime | None = None) -> Wait:
    return Wait(
        kind=WaitKind.CHILD,
        key=child.execution_id,
        asked_at=since,
        wake_at=(since if now is None else now) + _LOOK_ANYWAY,
    )


def gather(attempt: Attempt, children: Sequence[Child], keys: Sequence[str], *, return_exceptions: bool) -> list[Any]:
    """The outputs of the children, in their order, when all of them are over; unwinds the agent until then.

    Each end is recorded as a step. Raises the first child's `ChildFailed` in their order, or returns them among the
    outputs.
    """
    joins = [_Join.look_up(attempt, child, key) for child, key in zip(children, keys, strict=True)]
    missing = [join for join in joins if join.recorded is None]
    if missing:
        # What they will take is counted now, and not when hours have gone by.
        enter_wait(attempt, new_steps=len(missing))
        _collect(attempt, missing)
    still_missing = [join for join in missing if not attempt.journal.has(join.key)]
    if still_missing:
        first = still_missing[0]
        # The first one alone: while it goes on, whatever the others do wakes nobody.
        pause(attempt, _wait_for(first.child, attempt.now()), step=first.key)
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
class AwaitedChild(Awaited):
    """The end of a child, as the code waits for it beside other things."""

    child: Child

    @property
    def name(self) -> str:
        """The name of its step."""
        return _name_of_end(self.child)

    def open(self, attempt: Attempt, key: str) -> "OpenChild":
        """The code has come to it: its place."""
        return OpenChild(self.child, attempt, key)


class OpenChild(OpenWait):
    """A wait for the end of a child, at its place."""

    kind = WaitKind.CHILD

    def __init__(self, child: Child, attempt: Attempt, key: str) -> None:
        action = Action(kind="child", input=child.execution_id)
        super().__init__(attempt, key, action, address=child.execution_id)
        self._child = child
        self._end: ChildEnd | None = None

    def look(self, *, is_alone: bool = True) -> Ended | Wait:
        """See `OpenWait`."""
        del is_alone
        attempt, since = self.attempt, self.since
        enter_wait(attempt, standing=Standing(kind=self.kind, key=self.address, step=self.key, since=since))
        if self.moment() is None or self._look_at_end() is None:
            return _wait_for(self._child, since, attempt.now())
        attempt.mailbox.discard(SignalKind.CHILD, self.address)
        assert self._end is not None
        return Ended(result=_result_of(self._child, self._end), since=since)

    def moment(self) -> datetime | None:
        """See `OpenWait`. What nobody has told of is looked for at first, and then as rarely as nobody foresees."""
        told = self.attempt.mailbox.moment(SignalKind.CHILD, self.address)
        if told is not None:
            return told
        waiting, now = self.attempt.recorder.paused_on.find(self.kind, self.address), self.attempt.now()
        if waiting is not None and waiting.wake_at is not None and now < waiting.wake_at:
            return None
        return None if self._look_at_end() is None else now

    def value(self, result: Result) -> Any:
        """Return the child's output. Raise `ChildFailed`."""
        if result.error is not None:
            raise revive(result.error)
        return result.output

    def _look_at_end(self) -> ChildEnd | None:
        if self._end is None:
            self._end = self.attempt.ask_store(lambda: self.attempt.environment.relatives.end_of(self.address))
        return self._end


@dataclass(frozen=True, slots=True, kw_only=True)
class _Join:
    child: Child
    action: Action
    key: str
    recorded: AgentStep | None

    @classmethod
    def look_up(cls, attempt: Attempt, child: Child, key: str) -> "_Join":
        action = Action(kind="child", input=child.execution_id)
        return cls(child=child, action=action, key=key, recorded=attempt.journal.look_up(key, action))

    def result(self, attempt: Attempt) -> Result:
        step = self.recorded or attempt.journal.step(self.key)
        assert step.result is not None
        return step.result


def _collect(attempt: Attempt, missing: Sequence[_Join]) -> None:
    """Records the ends of those children that are over by now."""
    to_look_at = _may_be_over(attempt, missing)
    for execution_id in {join.child.execution_id for join in to_look_at}:
        while attempt.mailbox.take(SignalKind.CHILD, execution_id) is not None:
            continue
    batch: list[tuple[_Join, Result]] = []
    bytes_at_most = 0
    for join in to_look_at:
        end = attempt.ask_store(partial(attempt.environment.relatives.end_of, join.child.execution_id))
        if end is None:
            continue
        result = _result_of(join.child, end)
        size = len(dump(result.output, "output"))
        if batch and (len(batch) == _AT_ONCE or bytes_at_most + size > attempt.max_value_bytes):
            _record(attempt, batch)
            batch, bytes_at_most = [], 0
        batch.append((join, result))
        bytes_at_most += size
    if batch:
        _record(attempt, batch)


def _may_be_over(attempt: Attempt, missing: Sequence[_Join]) -> Sequence[_Join]:
    """All, unless the execution was woken by the end of one of them: then those whose ends it was told.

    Else hundreds of children that end one after the other would be looked at hundreds of times each.
    """
    waiting = attempt.recorder.paused_on.find(WaitKind.CHILD, missing[0].child.execution_id)
    if waiting is None or (waiting.wake_at and attempt.now() >= waiting.wake_at):
        return missing
    told = {signal.key for signal in attempt.context.signals if signal.kind is SignalKind.CHILD}
    return [join for join in missing if join.child.execution_id in told]


def _record(attempt: Attempt, batch: Sequence[tuple[_Join, Result]]) -> None:
    with attempt.course.lock:
        now, first = attempt.now(), attempt.journal.last_number + 1
        steps = [
            attempt.recorder.make_step(join.key, join.action, result, started=now, number=first + place)
            for place, (join, result) in enumerate(batch)
        ]
        try:
            attempt.recorder.record_all(tuple(steps))
        except InvalidRecord:
            # The output of one is too large for a step, which holds more than that.
            for join, result in batch:
                conclude(attempt, join.key, join.action, result, now)


def _result_of(child: Child, end: ChildEnd) -> Result:
    if end.state is AgentState.COMPLETED:
        return Result(success=True, output=end.output)
    # A part of a long message: a failure whose arguments are longer than a record keeps would lose its class.
    failed = ChildFailed(child.execution_id, child.agent_id, end.error_type, end.message[:_MESSAGE])
    return Result(success=False, error=describe(failed))
