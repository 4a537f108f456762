"""The gate between a claim and the agent's function: an execution pauses here until it is its turn.

The journal does not see the pause. The prompt of the pause keeps what the execution was paused on before, and
`unwrapped` puts it back before anything else looks at it: a sleep of an hour that has passed stays passed, however long
the execution waits for a free place afterwards. It keeps the crashes as well, which a pause clears.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar

from agent_statestore.errors import StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentContext, ExecutionSummary, SignalKind, Wait, WaitKind
from agent_statestore.store import Store
from celery_agents.define.registry import Registry
from celery_agents.define.turns import Turns
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.sleep import sleep_in_place
from celery_agents.lifecycle.ring import Ring
from celery_agents.lifecycle.turns.displacing import displace, take_back
from celery_agents.lifecycle.turns.line import REASON, TURN_KEY, Line, Reason, pass_turn_on

log = line_logger(__name__)

R = TypeVar("R")

RATE_KEY: Final = "agents.rate"
_PAUSES: Final = ((WaitKind.EVENT, TURN_KEY), (WaitKind.TIMER, RATE_KEY))

# How long an execution waits before it looks by itself whether it is its turn. The time doubles at each look, up to the
# second value.
FIRST_LOOK: Final = timedelta(minutes=1)
LONGEST_LOOK: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stepped:
    """The facts that a pause at the gate keeps."""

    since: datetime | None = None
    looks: int = 0
    is_promised: bool = False
    crashes: int = 0
    paused_on: tuple[Wait, ...] = ()

    @classmethod
    def of(cls, waits: tuple[Wait, ...]) -> "_Stepped":
        """Return what the pause that the execution comes from kept; nothing if it comes from elsewhere."""
        # The name alone does not tell: an agent may give its questions any name.
        waiting = waits[0] if waits else None
        own = waiting is not None and (waiting.kind, waiting.key) in _PAUSES
        if waiting is None or not own or not isinstance(waiting.prompt, dict):
            return cls(paused_on=waits)
        kept = waiting.prompt
        return cls(
            since=waiting.asked_at,
            looks=kept["looks"],
            is_promised=kept["promised"],
            crashes=kept["crashes"],
            paused_on=tuple(_read(wait) for wait in kept["paused_on"]),
        )

    def prompt(self, reason: str) -> dict[str, Any]:
        """Return the prompt in which the pause keeps these facts."""
        return {
            REASON: reason,
            "looks": self.looks,
            "promised": self.is_promised,
            "crashes": self.crashes,
            "paused_on": [_written(wait) for wait in self.paused_on],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The engine's `Turns`, on a store. `ring` publishes a bell."""

    store: Store
    registry: Registry
    ring: Ring

    def unwrapped(self, context: AgentContext) -> AgentContext:
        """Return the context as it would be had the execution not waited for its turn."""
        stepped = _Stepped.of(context.waits)
        return replace(context, waits=stepped.paused_on, crashes=context.crashes + stepped.crashes)

    def enter(self, attempt: Attempt, turns: Turns, waits: tuple[Wait, ...]) -> None:
        """Return when it is this execution's turn; otherwise pause, and unwind. `waits` are what the claim found."""
        if not turns.may_wait:
            return
        stepped = _Stepped.of(waits)
        # This claim is no crash; the claims before it were.
        stepped = replace(stepped, crashes=max(attempt.context.crashes - 1, 0))
        was_woken = False
        while attempt.mailbox.take(SignalKind.EVENT, TURN_KEY) is not None:
            was_woken = True
        if turns.has_lines:
            line = Line(self.store, turns)
            reason = _answer(attempt, lambda: line.obstacle(attempt.context, attempt.now()))
            if reason is Reason.SESSION:
                _answer(attempt, lambda: displace(self.store, turns, attempt.context, self.ring))
            if reason is not None:
                looks = 0 if was_woken or stepped.since is None else min(stepped.looks + 1, 30)
                _step_back(attempt, replace(stepped, looks=looks), reason.value)
        if turns.displaces and not _has_begun(attempt):
            _answer(attempt, lambda: take_back(self.store, turns, attempt.context))
        if turns.rate is not None and not _has_begun(attempt):
            _take_turn(attempt, self.store, turns, stepped)

    def pass_on(self, left: ExecutionSummary, now: datetime) -> None:
        """Wake those whose turn it is since this execution ended or paused. May be repeated."""
        pass_turn_on(self.store, self.registry, self.ring, left, now)


def _has_begun(attempt: Attempt) -> bool:
    """Return whether this is more than a start: something is recorded, or waited for."""
    return attempt.context.step_count > 0 or attempt.context.waiting is not None


def _step_back(attempt: Attempt, stepped: _Stepped, reason: str) -> NoReturn:
    now = attempt.now()
    look_after = min(FIRST_LOOK * 2**stepped.looks, LONGEST_LOOK) * attempt.environment.jitter.uniform(0.5, 1.0)
    pause(
        attempt,
        Wait(
            kind=WaitKind.EVENT,
            key=TURN_KEY,
            prompt=stepped.prompt(reason),
            asked_at=stepped.since or now,
            wake_at=now + look_after,
        ),
    )


def _take_turn(attempt: Attempt, store: Store, turns: Turns, stepped: _Stepped) -> None:
    """Wait for the agent's rate: for a moment in place, otherwise on a timer."""
    rate = turns.rate
    assert rate is not None
    within = timedelta(seconds=attempt.environment.inline_wait_seconds)
    turn = _answer(
        attempt,
        lambda: store.take_rate(turns.agent_id, rate.limit, rate.per, within=within, promised=stepped.is_promised),
    )
    if turn.is_taken:
        if turn.wait and sleep_in_place(attempt, turn.wait) is not None:
            attempt.course.leave_to_next_claim()  # the worker shuts down; the turn is lost
        return
    now = attempt.now()
    pause(
        attempt,
        Wait(
            kind=WaitKind.TIMER,
            key=RATE_KEY,
            prompt=replace(stepped, is_promised=turn.is_promised, looks=0).prompt("rate"),
            asked_at=stepped.since or now,
            wake_at=now + turn.wait,
        ),
    )


def _answer(attempt: Attempt, question: Callable[[], R]) -> R:
    """Return the store's answer. A fault, or a format that only a newer worker reads, does not fail the execution."""
    try:
        return attempt.ask_store(question)
    except StoreError as error:
        log.error("execution %s: left to others, its turn cannot be told: %s", attempt.context.execution_id, error)
        attempt.course.stop(Outcome(ending=Ending.UNKNOWN))


def _written(wait: Wait) -> dict[str, Any]:
    return {
        "kind": wait.kind.value,
        "key": wait.key,
        "prompt": wait.prompt,
        "schema": None if wait.schema is None else dict(wait.schema),
        "asked_at": wait.asked_at.isoformat(),
        "wake_at": None if wait.wake_at is None else wait.wake_at.isoformat(),
    }


def _read(kept: Mapping[str, Any]) -> Wait:
    return Wait(
        kind=WaitKind(kept["kind"]),
        key=kept["key"],
        prompt=kept["prompt"],
        schema=kept["schema"],
        asked_at=datetime.fromisoformat(kept["asked_at"]),
        wake_at=None if kept["wake_at"] is None else datetime.fromisoformat(kept["wake_at"]),
    )
