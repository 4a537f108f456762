"""`replay`: leads an agent's code through what was recorded of an execution, to see whether it still takes that way."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, cast

from agent_statestore.memory import MemoryStore
from agent_statestore.records import Action, AgentContext, AgentStep, Claim, JSONValue, Lease
from agent_statestore.states import AgentState
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.registry import Registry
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.outcome import Ending, ExecutionStopped, Outcome
from celery_agents.engine.run.async_run import drive
from celery_agents.engine.run.run import Run
from celery_agents.errors import JournalMismatch
from celery_agents.lifecycle.assembly import make_executor
from celery_agents.testing.attempt import NoKeeper
from celery_agents.testing.recorded import context_of

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
    attempt = _attempt_at(agent, context)
    try:
        value = agent.decode_input(context.input)
        returned = drive(attempt, agent.function, value) if agent.is_async else agent(Run(attempt), value)
        attempt.enter_end()
    except ExecutionStopped:
        pass
    except Exception as error:
        attempt.raise_mismatch()
        if attempt.stopped is None:
            if context.error is None or describe(error).type != context.error.type:
                raise
            return Replayed(steps=len(attempt.passed), error=error)
    else:
        attempt.raise_mismatch()
        return Replayed(steps=len(attempt.passed), output=agent.encode_output(returned))
    attempt.raise_mismatch()
    return Replayed(steps=len(attempt.passed), stopped_at=attempt.stopped_at)


class _ReplayAttempt(Attempt):
    """An attempt that ends at the first thing that would be done."""

    def __init__(self, context: AgentContext, **parts: Any) -> None:
        super().__init__(context, **parts)
        # The keys of the recorded steps that the code came to, and the first other one.
        self.passed: set[str] = set()
        self.stopped_at: str | None = None
        self.mismatch: JournalMismatch | None = None

    def now(self) -> datetime:
        """The time of the last write: what was not up then is not up now."""
        return self.context.updated_at

    def come_to(self, name: str, *, is_derived: bool = False) -> str:
        with self._noting_mismatch():
            return super().come_to(name, is_derived=is_derived)

    def look_up(self, key: str, action: Action) -> AgentStep | None:
        with self._noting_mismatch():
            recorded = super().look_up(key, action)
        if recorded is not None and recorded.result is not None:
            self.passed.add(key)
        elif self.stopped_at is None:
            self.stopped_at = key
        return recorded

    @contextmanager
    def _noting_mismatch(self) -> Iterator[None]:
        try:
            yield
        except JournalMismatch as error:
            self.mismatch = self.mismatch or error
            raise

    def raise_mismatch(self) -> None:
        """Raises the first contradiction, which the agent's code may have caught."""
        if self.mismatch is not None:
            raise self.mismatch

    def enter_boundary(self, *, even_before_pause: bool = False) -> None:
        """Whatever comes after this would be done for real."""
        del even_before_pause
        self.stop(Outcome(ending=Ending.DRAINED))

    def record_all(self, steps: tuple[AgentStep, ...]) -> NoReturn:
        del steps
        self.stop(Outcome(ending=Ending.DRAINED))


def _attempt_at(agent: AgentDefinition, recorded: AgentContext) -> _ReplayAttempt:
    """The attempt that would be made now."""
    context = replace(recorded, state=AgentState.THINKING, attempt=recorded.attempt + 1)
    executor = make_executor(
        store=MemoryStore(), registry=Registry(), keeper=NoKeeper(MemoryStore()), make_attempt=_ReplayAttempt
    )
    now = context.updated_at
    lease = Lease(
        execution_id=context.execution_id, token=context.attempt, owner="replay", ttl=_TTL, expires_at=now + _TTL
    )
    held = HeldLease(lease, time.monotonic())
    return cast(_ReplayAttempt, executor.attempt_at(agent, Claim(lease=lease, context=context, now=now), held))
