"""Short ways to make the records that the tests write."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from agent_statestore.checkpoint import STATE_OF_WAIT, Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.records import (
    Action,
    AgentContext,
    AgentStep,
    Claim,
    ErrorInfo,
    ExecutionSummary,
    JSONValue,
    Lease,
    Message,
    Result,
    SayMode,
    Signal,
    SignalKind,
    Wait,
    WaitKind,
)
from agent_statestore.states import AgentState
from agent_statestore.store import Store

TTL = timedelta(seconds=15)
GRACE = timedelta(seconds=30)
INSTANT = timedelta(microseconds=1)
YEAR = timedelta(days=365)
AT = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
BOOM = ErrorInfo(type="builtins:ValueError", message="boom", args=("boom", 1), traceback="Traceback ...")


def create(store: Store, agent_id: str = "agent", **fields: Any) -> str:
    """Create an execution, and return its id."""
    return store.create_context(agent_id, **fields).execution_id


def context_of(store: Store, execution_id: str) -> AgentContext:
    """Return the context of an execution that must exist."""
    context = store.get_context(execution_id)
    assert context is not None
    return context


def summary_of(store: Store, execution_id: str) -> ExecutionSummary:
    """Return the summary of an execution that must exist."""
    summary = store.get_summary(execution_id)
    assert summary is not None
    return summary


def claim(store: Store, execution_id: str, owner: str = "host:1", ttl: timedelta = TTL) -> Claim:
    """Return a claim that must succeed."""
    claimed = store.claim(execution_id, owner, ttl)
    assert claimed is not None
    return claimed


def claimed(store: Store, **fields: Any) -> tuple[str, Lease]:
    """Return a new execution and the lease on it."""
    execution_id = create(store, **fields)
    return execution_id, claim(store, execution_id).lease


def done(number: int, name: str | None = None, output: JSONValue = None) -> AgentStep:
    """Return a step with its result."""
    return AgentStep(
        step_number=number,
        name=name or f"step-{number}",
        action=Action(kind="step", tool="search", input={"q": ["x"]}, thought="hm"),
        result=Result(success=True, output=output),
        attempt=1,
        tries=2,
        timestamp=AT,
        duration=timedelta(milliseconds=1500),
    )


def intent(number: int, name: str | None = None) -> AgentStep:
    """Return a step without a result."""
    return AgentStep(step_number=number, name=name or f"step-{number}", action=Action(kind="tool"), timestamp=AT)


def message(content: JSONValue, role: str = "user") -> Message:
    """Return a message."""
    return Message(role=role, content=content, timestamp=AT)


def wait(kind: WaitKind = WaitKind.INPUT, key: str = "question", wake_at: datetime | None = None) -> Wait:
    """Return a wait for a pause."""
    return Wait(kind=kind, key=key, prompt={"text": "?"}, schema={"type": "string"}, asked_at=AT, wake_at=wake_at)


def pause(
    kind: WaitKind = WaitKind.INPUT, key: str = "question", wake_at: datetime | None = None, **fields: Any
) -> Checkpoint:
    """Return the write that pauses."""
    return Checkpoint(state=STATE_OF_WAIT[kind], waits=(wait(kind, key, wake_at),), **fields)


def signal(kind: SignalKind, key: str = "question", payload: JSONValue = None, signal_id: str | None = None) -> Signal:
    """Return a signal."""
    if kind is SignalKind.SAY and key == "question":
        key = SayMode.NEXT_BOUNDARY
    return Signal(
        signal_id=signal_id or uuid4().hex,
        kind=kind,
        key="" if kind is SignalKind.CANCEL else key,
        payload=payload,
        sender="ada",
        reason="because",
    )


def stamped(sent: Signal, clock: ManualClock) -> Signal:
    """Return the signal as a store keeps it that accepts it now."""
    return replace(sent, sent_at=from_us(clock.now_us()))


def answer(payload: JSONValue = "yes", key: str = "question") -> Signal:
    """Return an answer."""
    return signal(SignalKind.ANSWER, key, payload)


def event(payload: JSONValue = None, key: str = "question") -> Signal:
    """Return an event."""
    return signal(SignalKind.EVENT, key, payload)


def saying(text: str = "use the EU index", mode: str = "next_boundary", signal_id: str | None = None) -> Signal:
    """Return what somebody says."""
    return signal(SignalKind.SAY, mode, text, signal_id)


def cancel() -> Signal:
    """Return a cancel."""
    return signal(SignalKind.CANCEL)


def move(store: Store, execution_id: str, state: AgentState, lease: Lease | None = None) -> None:
    """Write a state, with what belongs to it."""
    waits = {STATE_OF_WAIT[kind]: (wait(kind),) for kind in (WaitKind.INPUT, WaitKind.APPROVAL, WaitKind.EVENT)}
    store.update_state(
        execution_id,
        state,
        waits=waits.get(state, ()),
        error=BOOM if state is AgentState.FAILED else None,
        lease=lease,
    )


def due_ids(store: Store, limit: int = 1000, grace: timedelta = GRACE) -> list[str]:
    """Return the ids that one call of `take_due` takes."""
    return [due.execution_id for due in store.take_due(limit, grace)]
