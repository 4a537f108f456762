"""Executions in every situation, for moves from store to store; and one life that has something of everything."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from agent_statestore.checkpoint import Checkpoint, NewExecution, Via
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.records import ErrorInfo, Message, RagChunk, Signal, SignalKind, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.contents import KEYS, VALUES
from agent_statestore.testing.kit.builders import (
    AT,
    BOOM,
    GRACE,
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    create,
    done,
    event,
    intent,
    message,
    pause,
)

# A normalising column would change its spaces, its order, or its numbers.
METADATA: Final = {"b": 1.0, "a": [1, 2.50, "  x  y "], "ключ": "\u2028\x00", "": None, "B": 1e22}


def export_of(store: Store, execution_id: str) -> ExportedExecution:
    """Return an export that must succeed."""
    exported = store.export(execution_id)
    assert exported is not None
    return exported


def story(store: Store) -> Iterator[str]:
    """Live a life in which everything happens, and yield the execution's id after each write.

    Two stores on one clock that live it hold the same, except for the id.
    """
    made = store.create(
        NewExecution(
            agent_id="agent Ünï",
            input=VALUES,
            session_id="session ключ",
            user_id="user",
            metadata=METADATA,
            idempotency_key="key of the story",
            parent_execution_id="parent",
            queue="gpu",
            priority=0,
        )
    )
    execution_id = made.execution_id
    yield execution_id
    for _ in _first_attempt(store, execution_id):
        yield execution_id
    lease = claim(store, execution_id, "host:2").lease
    yield execution_id
    store.checkpoint(execution_id, pause(WaitKind.APPROVAL, consumed=("answer",), checkpoint_id="6"), lease)
    yield execution_id
    store.send(execution_id, _signal("approval", SignalKind.APPROVAL))
    yield execution_id
    store.send(execution_id, _signal("cancel", SignalKind.CANCEL))
    yield execution_id
    lease = claim(store, execution_id, "host:3").lease
    yield execution_id
    error = ErrorInfo(type="a:B", message="Ünï", args=(1, None), bases=("c:D",), traceback="...")
    store.checkpoint(
        execution_id,
        Checkpoint(
            state=AgentState.FAILED, error=error, announce_within=GRACE, by="ada", reason="ключ", checkpoint_id="7"
        ),
        lease,
    )
    yield execution_id


def _first_attempt(store: Store, execution_id: str) -> Iterator[None]:
    lease = claim(store, execution_id).lease
    yield
    store.checkpoint(
        execution_id,
        Checkpoint(
            steps=(done(1, output=VALUES), intent(2, "search"), intent(3, "Search")),
            messages=(
                message(VALUES),
                Message(role="assistant", content=None, timestamp=AT, metadata=METADATA, by_run=True),
            ),
            working_memory={key: number for number, key in enumerate(KEYS)},
            facts=tuple(VALUES),
            facts_by_run=True,
            entities={key: {key: number} for number, key in enumerate(reversed(KEYS))},
            rag_context=(RagChunk(content="c", source="s", score=0.1, metadata=METADATA), RagChunk(content=VALUES)),
            state=AgentState.USING_TOOL,
            checkpoint_id="1",
        ),
        lease,
    )
    yield
    store.checkpoint(
        execution_id,
        Checkpoint(steps=(done(2, "search"), *(done(number) for number in range(4, 30))), checkpoint_id="2"),
        lease,
    )
    yield
    store.checkpoint(
        execution_id, Checkpoint(forget=("a", "never there"), facts=("by a client",), checkpoint_id="3"), lease
    )
    yield
    for number in range(12):  # more than nine, and in an order of arrival that is not that of their ids
        store.send(execution_id, _signal(f"event {(number * 5) % 12}", SignalKind.EVENT))
        yield
    store.send(execution_id, _signal("child", SignalKind.CHILD, "0191"))
    yield
    consumed = ("event 10", "event 0", "unknown", "event 7")
    store.checkpoint(execution_id, Checkpoint(consumed=consumed, checkpoint_id="4"), lease)
    yield
    store.checkpoint(execution_id, pause(checkpoint_id="5"), lease)
    yield
    store.send(execution_id, _signal("answer", SignalKind.ANSWER))
    yield


def _signal(signal_id: str, kind: SignalKind, key: str = "question") -> Signal:
    return Signal(
        signal_id=signal_id,
        kind=kind,
        key="" if kind is SignalKind.CANCEL else key,
        payload=METADATA,
        sender="Ünï",
        reason="ключ",
    )


# -- situations --------------------------------------------------------------------------------------------------------


def _new(store: Store, _clock: ManualClock) -> str:
    return create(store, session_id="s", first_ring=timedelta(seconds=3))


def _waiting_for_its_start(store: Store, clock: ManualClock) -> str:
    return create(store, start_at=from_us(clock.now_us()) + timedelta(hours=1))


def _rung(store: Store, _clock: ManualClock) -> str:
    execution_id = create(store)
    for _ in range(3):
        store.mark_rung([(execution_id, 0)], GRACE, GRACE)
    return execution_id


def _leased(store: Store, _clock: ManualClock) -> str:
    execution_id, lease = claimed(store, idempotency_key="key")
    store.checkpoint(execution_id, Checkpoint(steps=(done(1), intent(2))), lease)
    return execution_id


def _abandoned(store: Store, clock: ManualClock) -> str:
    execution_id = _leased(store, clock)
    clock.advance(TTL)
    return execution_id


def _given_back(store: Store, _clock: ManualClock) -> str:
    execution_id, lease = claimed(store)
    store.release(lease, crashed=True)
    return execution_id


def _paused(store: Store, _clock: ManualClock) -> str:
    execution_id, lease = claimed(store)
    store.checkpoint(execution_id, pause(steps=(intent(1),)), lease)
    return execution_id


def _paused_with_a_deadline(store: Store, clock: ManualClock) -> str:
    execution_id, lease = claimed(store)
    wake_at = from_us(clock.now_us()) + timedelta(days=7)
    store.checkpoint(execution_id, pause(WaitKind.TIMER, wake_at=wake_at), lease)
    return execution_id


def _answered(store: Store, clock: ManualClock) -> str:
    execution_id = _paused(store, clock)
    store.send(execution_id, event(key="another"))
    store.send(execution_id, answer({"b": 1, "a": "ключ"}))
    return execution_id


def _to_be_cancelled(store: Store, clock: ManualClock) -> str:
    execution_id = _paused(store, clock)
    store.send(execution_id, cancel())
    return execution_id


def _completed(store: Store, _clock: ManualClock) -> str:
    execution_id, lease = claimed(store, user_id="u", idempotency_key="key")
    store.checkpoint(execution_id, Checkpoint(state=AgentState.COMPLETED, output=VALUES), lease)
    return execution_id


def _without_output(store: Store, _clock: ManualClock) -> str:
    execution_id = create(store)
    store.update_state(execution_id, AgentState.CANCELLED, by="ada", reason="because")
    return execution_id


def _not_announced(store: Store, _clock: ManualClock) -> str:
    execution_id, lease = claimed(store)
    store.checkpoint(execution_id, Checkpoint(state=AgentState.FAILED, error=BOOM, announce_within=GRACE), lease)
    return execution_id


def _released(store: Store, clock: ManualClock) -> str:
    execution_id = _not_announced(store, clock)
    store.settle(execution_id)
    store.requeue(execution_id, by="ada", reason="mended", via=Via(channel="http", os_user="web"))
    return execution_id


def _everything(store: Store, clock: ManualClock) -> str:
    execution_id = ""
    for execution_id in story(store):  # noqa: B007 - the last one counts
        clock.advance(timedelta(milliseconds=1))
    return execution_id


SITUATIONS: Final[dict[str, Callable[[Store, ManualClock], str]]] = {
    "new": _new,
    "waiting for its start": _waiting_for_its_start,
    "rung": _rung,
    "leased": _leased,
    "abandoned": _abandoned,
    "given back": _given_back,
    "paused": _paused,
    "paused with a deadline": _paused_with_a_deadline,
    "answered": _answered,
    "to be cancelled": _to_be_cancelled,
    "completed": _completed,
    "without output": _without_output,
    "not announced": _not_announced,
    "released": _released,
    "everything": _everything,
}
