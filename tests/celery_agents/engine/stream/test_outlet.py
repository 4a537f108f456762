"""What an attempt has said and the store may not have yet: nothing is lost, overtaken, or said twice."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import Checkpoint, ManualClock, MemoryStore
from agent_statestore.records import Action, Lease
from agent_statestore.store import Store
from agent_statestore.streams.records import StreamAppend, StreamEvent, StreamKind
from agent_statestore.testing.kit.builders import AT, claim, create, done
from celery_agents.engine.stream import outlet as outlets
from celery_agents.engine.stream.outlet import MOST_WAITING, Outlet

TOLD = StreamEvent(kind=StreamKind.PAUSED, at=AT)


@pytest.fixture
def store() -> Iterator[Store]:
    with MemoryStore(clock=ManualClock()) as opened:
        yield opened


@pytest.fixture
def lease(store: Store) -> Lease:
    return claim(store, create(store), ttl=timedelta(days=1)).lease


@pytest.fixture
def outlet(lease: Lease) -> Outlet:
    return Outlet(lease, lambda: AT, lambda: None, lambda _: None)


def write(store: Store, outlet: Outlet) -> None:
    """Write beside checkpoints, as the writer does."""
    part = outlet.take()
    if part is not None:
        (answer,) = store.append_events([StreamAppend(lease=outlet.lease, part=part)])
        outlet.written(part, is_accepted=answer.accepted)


def told(store: Store, lease: Lease) -> list[object]:
    page = store.read_events(lease.execution_id, 0, 1000)
    assert page is not None
    return [event.data.get("value", event.data.get("delta", str(event.kind))) for event in page.events]


def carry(outlet: Outlet, number: int, told: Sequence[StreamEvent] = ()) -> Checkpoint:
    """Return the checkpoint of a step, with all that waits."""
    change: dict[str, Any] = {"steps": (done(number),)}
    outlet.carry(change, told)
    return Checkpoint(**change)


def emit(outlet: Outlet, value: object) -> None:
    outlet.say(StreamKind.EMITTED, {"value": value})


def test_pieces_of_one_text_are_one_event_until_it_is_taken(store: Store, outlet: Outlet, lease: Lease) -> None:
    for delta in "abc":
        outlet.say(StreamKind.TEXT, {"delta": delta}, step="s")
    outlet.say(StreamKind.TEXT, {"delta": "d"}, step="other")
    outlet.say(StreamKind.TEXT, {"delta": "e"}, step="other", tried=2)
    outlet.say(StreamKind.THINKING, {"delta": "f"}, step="other", tried=2)
    outlet.say(StreamKind.TOOL_CALL, {"id": "1", "tool": "t", "delta": "g"}, step="s")
    outlet.say(StreamKind.TOOL_CALL, {"id": "2", "tool": "t", "delta": "h"}, step="s")
    outlet.say(StreamKind.TOOL_CALL, {"id": "2", "tool": "t", "delta": "i"}, step="s")
    write(store, outlet)
    outlet.say(StreamKind.TOOL_CALL, {"id": "2", "tool": "t", "delta": "j"}, step="s")
    outlet.say(StreamKind.TOOL_CALL, {"id": "2", "tool": "t", "delta": "k", "arguments": {"x": 1}}, step="s")
    write(store, outlet)
    assert told(store, lease) == ["abc", "d", "e", "f", "g", "hi", "j", "k"]
    page = store.read_events(lease.execution_id, 0, 100)
    assert page is not None
    assert page.events[-1].data["arguments"] == {"x": 1}


def test_a_checkpoint_takes_what_was_said_before_it(store: Store, outlet: Outlet, lease: Lease) -> None:
    emit(outlet, "a")
    in_flight = outlet.take()
    assert in_flight is not None
    emit(outlet, "b")
    checkpoint = carry(outlet, 1)
    assert outlet.take() is None, "nothing overtakes it"
    emit(outlet, "c")
    store.checkpoint(lease.execution_id, checkpoint, lease)
    outlet.carried(is_watched=False)
    store.append_events([StreamAppend(lease=lease, part=in_flight)])  # late
    outlet.written(in_flight, is_accepted=True)
    write(store, outlet)
    assert told(store, lease) == ["a", "b", "step_recorded", "c"]


def test_what_a_refused_checkpoint_tells_has_not_happened(store: Store, outlet: Outlet, lease: Lease) -> None:
    emit(outlet, "a")
    carry(outlet, 1)
    emit(outlet, "b")
    outlet.put_back()
    write(store, outlet)
    assert told(store, lease) == ["a", "b"]


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_checkpoint_of_which_nobody_knows_is_told_once_or_is_a_gap(
    store: Store, outlet: Outlet, lease: Lease, is_stored: bool
) -> None:
    emit(outlet, "a")
    checkpoint = carry(outlet, 1)
    emit(outlet, "b")
    if is_stored:
        store.checkpoint(lease.execution_id, checkpoint, lease)
    outlet.leave_open()
    write(store, outlet)
    assert told(store, lease) == ["a", "step_recorded" if is_stored else "gap", "b"]


def test_a_store_that_is_away_costs_pieces_and_a_gap_says_how_many(store: Store, outlet: Outlet, lease: Lease) -> None:
    for number in range(2 * MOST_WAITING):
        outlet.say(StreamKind.TEXT, {"delta": "x"}, step=f"s{number}")
    emit(outlet, "kept")
    sizes = []
    while not outlet.is_quiet:
        part = outlet.take()
        assert part is not None
        sizes.append(len(part.events))
        (answer,) = store.append_events([StreamAppend(lease=lease, part=part)])
        outlet.written(part, is_accepted=answer.accepted)
    events, after = [], 0
    while (page := store.read_events(lease.execution_id, after, 1000)) and page.events:
        events += page.events
        after = page.events[-1].number or 0
    texts = [event for event in events if event.kind == StreamKind.TEXT]
    dropped = sum(event.data["dropped"] for event in events if event.kind == StreamKind.GAP)
    assert len(texts) + dropped == 2 * MOST_WAITING
    assert 0 < dropped < 2 * MOST_WAITING
    assert events[-1].data == {"value": "kept"}


def test_one_huge_text_is_bounded(outlet: Outlet) -> None:
    for _ in range(64):
        outlet.say(StreamKind.TEXT, {"delta": "x" * 100_000}, step="s")
    part = outlet.take()
    assert part is not None
    assert sum(len(event.data.get("delta", "")) for event in part.events) < 3_000_000
    assert part.events[-1].kind == StreamKind.GAP


def test_a_refused_writer_says_nothing_any_more(store: Store, outlet: Outlet, lease: Lease) -> None:
    store.release(lease)
    emit(outlet, "a")
    write(store, outlet)
    emit(outlet, "b")
    assert outlet.take() is None
    assert carry(outlet, 1).stream is None
    assert told(store, lease) == []


def test_a_step_is_told_of_when_it_takes_long(
    store: Store, outlet: Outlet, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet.begin("step-1", Action(kind="step"), 1)
    carry(outlet, 1)
    outlet.carried(is_watched=False)
    outlet.begin("slow", Action(kind="tool", tool="search", input={"q": 1}), 1)
    assert outlet.take() is None
    monkeypatch.setattr(outlets, "LATE_SECONDS", 0.0)
    part = outlet.take()
    assert part is not None
    (started,) = part.events
    assert (started.kind, started.step, started.data) == (
        StreamKind.STEP_STARTED,
        "slow",
        {"action": "tool", "tool": "search", "arguments": {"q": 1}},
    )
    outlet.written(part, is_accepted=True)
    assert outlet.is_quiet


def test_any_order_of_writes_leaves_every_event_once_and_in_order(store: Store) -> None:
    """Random walks through all that may happen: batches that are late or lost, checkpoints, refusals, unknown ends."""
    chance = random.Random(7)
    for _ in range(200):
        lease = claim(store, create(store), ttl=timedelta(days=1)).lease
        outlet = Outlet(lease, lambda: AT, lambda: None, lambda _: None)
        said: list[int] = []
        steps, pauses, in_flight = 0, 0, []
        for _ in range(60):
            match chance.randrange(6):
                case 0 | 1:
                    said.append(len(said))
                    emit(outlet, said[-1])
                case 2:
                    part = outlet.take()
                    if part is not None:
                        in_flight.append(part)
                case 3 if in_flight:
                    part = in_flight.pop(0)
                    (answer,) = store.append_events([StreamAppend(lease=lease, part=part)])
                    if chance.random() < 0.7:  # or its answer is lost
                        outlet.written(part, is_accepted=answer.accepted)
                case 4:
                    is_pause = chance.random() < 0.3
                    checkpoint = carry(outlet, steps + 1, [TOLD] if is_pause else [])
                    if chance.random() < 0.5:
                        said.append(len(said))
                        emit(outlet, said[-1])
                    fate = chance.randrange(4)
                    if fate in (0, 1):
                        steps += 1
                        pauses += is_pause
                        store.checkpoint(lease.execution_id, checkpoint, lease)
                    if fate == 0:
                        outlet.carried(is_watched=False)
                    elif fate == 2:
                        outlet.put_back()
                    else:
                        outlet.leave_open()
                case _:
                    pass
        while not outlet.is_quiet:
            write(store, outlet)
        values = told(store, lease)
        assert [value for value in values if isinstance(value, int)] == said
        assert values.count("step_recorded") == steps - pauses
        assert values.count("paused") == pauses
