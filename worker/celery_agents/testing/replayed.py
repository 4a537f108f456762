"""`replay`: leads an agent's code through what was recorded of an execution, to see whether it still takes that way."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar

from agent_statestore.memory import MemoryStore
from agent_statestore.records import AgentContext, AgentStep, Claim, JSONValue, Lease, SignalKind
from agent_statestore.states import AgentState
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.registry import Registry
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.outcome import ExecutionStopped
from celery_agents.engine.run.async_run import drive
from celery_agents.engine.run.run import Run
from celery_agents.engine.stage import Stage
from celery_agents.errors import JournalMismatch
from celery_agents.lifecycle.assembly import make_executor
from celery_agents.testing.recorded import context_of
from celery_agents.testing.stage import NoKeeper

R = TypeVar("R")

_TTL: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """How far the code went in a replay.

    `steps` counts the recorded steps that it was led past. It then came to its end and returned `output`, or raised the
    error with which the execution had failed; or it came to `stopped_at`: a step that is not recorded, the question
    that the execution waits to have answered, or one that was in flight. That one was not taken.
    """

    steps: int
    stopped_at: str | None = None
    output: JSONValue = None
    error: Exception | None = field(default=None, compare=False)

    @property
    def is_over(self) -> bool:
        """Whether the code came to its end."""
        return self.stopped_at is None


def replay(agent: AgentDefinition, recorded: AgentContext | Mapping[str, Any] | str) -> Replayed:
    """Leads the agent's code through the recorded steps of an execution, and runs none of them.

    `recorded` is the execution's context, or what `agents show ID --json` prints of it, as text or decoded. The first
    step that is not recorded ends the replay before it is taken. Nothing is called but the agent's function itself, and
    nothing is stored. Run it on executions from production before a deploy: it fails where they would.

    Raises `JournalMismatch` at the step where the code contradicts the record, also if the code catches that;
    `InvalidInput` if the recorded input does not fit any more; and what the agent's function raises, unless the
    execution is recorded to have failed with an error of that class.
    """
    context = context_of(recorded)
    stage = _ReplayStage(context.updated_at)
    attempt = _attempt_at(agent, context, stage)
    try:
        value = agent.decode_input(context.input)
        returned = drive(attempt, agent.function, value) if agent.is_async else agent(Run(attempt), value)
        attempt.course.join()
        attempt.course.check_goes_on()
        attempt.journal.check_all_reached()
    except ExecutionStopped:
        pass
    except (Exception, SystemExit) as error:
        stage.raise_mismatch()
        if attempt.course.stopped is None:
            if context.error is None or describe(error).type != context.error.type:
                raise
            failure = error if isinstance(error, Exception) else revive(describe(error))
            return Replayed(steps=len(stage.passed), error=failure)
    else:
        stage.raise_mismatch()
        return Replayed(steps=len(stage.passed), output=agent.encode_output(returned))
    stage.raise_mismatch()
    return Replayed(steps=len(stage.passed), stopped_at=stage.stopped_at)


class _ReplayStage(Stage):
    """The world of a replay: it notes how far the code comes."""

    def __init__(self, now: datetime) -> None:
        """`now` is the time of the last write: what was not up then is not up now."""
        self._now = now
        # The keys of the recorded steps that the code came to, and the first other one.
        self.passed: set[str] = set()
        self.stopped_at: str | None = None
        self._mismatch: JournalMismatch | None = None

    def now(self) -> datetime:
        """Return the time of the last write."""
        return self._now

    def come_to_step(self) -> None:
        """Let it pass: it may be recorded."""

    def looked_up(self, key: str, recorded: AgentStep | None) -> None:
        """Note it."""
        if recorded is not None and recorded.result is not None:
            self.passed.add(key)
        elif self.stopped_at is None:
            self.stopped_at = key

    def contradicted(self, mismatch: JournalMismatch) -> None:
        """Note it."""
        self._mismatch = self._mismatch or mismatch

    def raise_mismatch(self) -> None:
        """Raise the first contradiction, which the agent's code may have caught."""
        if self._mismatch is not None:
            raise self._mismatch

    def stand_in(self, name: str, tool: str | None) -> None:
        """Nothing is called."""

    def call(self, key: str, function: Callable[[], R]) -> NoReturn:
        """Refuse: the replay has ended before."""
        raise AssertionError(f"step {key!r}, {function!r}, is called in a replay")


def _attempt_at(agent: AgentDefinition, recorded: AgentContext, stage: Stage) -> Attempt:
    """The attempt that would be made now. It ends at its first boundary: what comes after would be done for real."""
    # What nobody has read yet is not read here either.
    signals = tuple(signal for signal in recorded.signals if signal.kind is not SignalKind.SAY)
    context = replace(recorded, state=AgentState.THINKING, attempt=recorded.attempt + 1, signals=signals)
    executor = make_executor(
        store=MemoryStore(),
        registry=Registry(),
        keeper=NoKeeper(MemoryStore()),
        is_draining=lambda: True,
        set_stage=lambda *_: stage,
    )
    now = context.updated_at
    lease = Lease(
        execution_id=context.execution_id, token=context.attempt, owner="replay", ttl=_TTL, expires_at=now + _TTL
    )
    held = HeldLease(lease, time.monotonic())
    return executor.attempt_at(agent, Claim(lease=lease, context=context, now=now), held)
