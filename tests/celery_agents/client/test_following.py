"""Following an execution: everybody sees every event once and in order, whatever happens meanwhile."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import Checkpoint, ExecutionNotFound, MemoryStore
from agent_statestore.codec.streams import StoredStream
from agent_statestore.contract.streams import PollingListener
from agent_statestore.errors import StoreUnavailable
from agent_statestore.records import Lease
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.streams.records import StreamAppend, StreamEvent, StreamKind, StreamPart
from agent_statestore.testing.kit.builders import AT, claim, create
from celery_agents import Registry, WaitInsideAgent
from celery_agents.client import stream_hub
from celery_agents.client.execution import Execution
from celery_agents.client.stream_hub import hub_of
from celery_agents.engine.steps.scope import executing
from celery_agents.engine.stream.telling import ending
from celery_agents.testing.runtime import LocalRuntime

DAY = timedelta(days=1)


class Flaky(MemoryStore):
    """A store that can go away, and that counts how often streams are read."""

    is_away = False
    reads = 0

    def read_streams(self, cursors: Any, limit: int) -> Any:
        if self.is_away:
            raise StoreUnavailable(self.url, "away")
        self.reads += 1
        return super().read_streams(cursors, limit)


@pytest.fixture
def store() -> Iterator[Flaky]:
    with Flaky() as opened:
        yield opened


def started(store: Store) -> tuple[Execution, Lease]:
    execution_id = create(store)
    lease = claim(store, execution_id, ttl=DAY).lease
    return Execution(execution_id, LocalRuntime(Registry(), store)), lease


def say(store: Store, lease: Lease, *numbers: int) -> None:
    """Append events: number n is the n-th of the attempt."""
    events = tuple(
        StreamEvent(kind=StreamKind.EMITTED, data={"value": number}, at=AT, attempt=lease.token, seq=number)
        for number in numbers
    )
    (answer,) = store.append_events([StreamAppend(lease=lease, part=StreamPart(events=events))])
    assert answer.accepted


def end(store: Store, lease: Lease, *, told: bool = True) -> None:
    state = AgentState.COMPLETED
    store.checkpoint(lease.execution_id, Checkpoint(state=state, stream=ending(state) if told else None), lease)


def seen(events: Any) -> list[object]:
    return [event.data.get("value", str(event.kind)) for event in events]


def test_events_are_followed_from_any_place_to_the_end(store: Flaky) -> None:
    execution, lease = started(store)
    say(store, lease, 1, 2)
    events = execution.events()
    first, second = next(events), next(events)
    assert seen([first, second]) == [1, 2]
    threading.Timer(0.1, lambda: (say(store, lease, 3), end(store, lease))).start()
    assert seen(events) == [3, "ended"]
    assert seen(execution.events(after=first.number or 0)) == [2, 3, "ended"]
    assert seen(execution.events()) == [1, 2, 3, "ended"]


def test_a_reader_who_has_seen_all_is_told_that_it_is_over(store: Flaky) -> None:
    execution, lease = started(store)
    end(store, lease, told=False)  # as an older version does
    (ended,) = execution.events()
    assert (ended.kind, ended.data, ended.number) == ("ended", {"state": "completed"}, None)


def test_many_read_what_is_read_once(store: Flaky) -> None:
    execution, lease = started(store)
    say(store, lease, 1)
    with ThreadPoolExecutor(20) as pool:
        reading = [pool.submit(lambda: seen(execution.events())) for _ in range(20)]
        time.sleep(0.3)
        before = store.reads
        for number in range(2, 12):
            say(store, lease, number)
            time.sleep(0.01)
        end(store, lease)
        assert {tuple(one.result(20)) for one in reading} == {(*range(1, 12), "ended")}
        assert store.reads - before <= 15, "not 20 times each"


def test_coroutines_follow_without_threads(store: Flaky) -> None:
    execution, lease = started(store)
    say(store, lease, 1)

    async def read() -> list[object]:
        return seen([event async for event in execution.aio.events()])

    async def main() -> None:
        readers = [asyncio.create_task(read()) for _ in range(50)]
        await asyncio.sleep(0.3)
        threads = threading.active_count()
        for number in range(2, 6):
            await asyncio.to_thread(say, store, lease, number)
        await asyncio.to_thread(end, store, lease)
        assert {tuple(one) for one in await asyncio.gather(*readers)} == {(1, 2, 3, 4, 5, "ended")}
        assert threads < 30

    asyncio.run(main())


def test_one_that_is_far_behind_reads_for_itself_and_joins(store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_hub, "_TAIL", 10)
    execution, lease = started(store)
    say(store, lease, *range(1, 2_501))
    ahead = execution.events()
    assert seen([next(ahead)]) == [1]
    with ThreadPoolExecutor(1) as pool:
        behind = pool.submit(lambda: seen(execution.events()))
        for first in range(2_501, 3_001, 50):
            say(store, lease, *range(first, first + 50))
        end(store, lease)
        assert behind.result(20) == [*range(1, 3_001), "ended"]
    assert seen(ahead) == [*range(2, 3_001), "ended"]


def test_a_store_that_is_away_is_waited_for(store: Flaky) -> None:
    execution, lease = started(store)
    say(store, lease, 1)
    events = execution.events()
    assert seen([next(events)]) == [1]
    store.is_away = True
    say(store, lease, 2)
    threading.Timer(0.5, lambda: (say(store, lease, 3), setattr(store, "is_away", False), end(store, lease))).start()
    with ThreadPoolExecutor(1) as pool:
        fresh = pool.submit(lambda: seen(execution.events()))
        assert seen(events) == [2, 3, "ended"]
        assert fresh.result(20) == [1, 2, 3, "ended"]


def test_a_reader_behind_the_trim_is_told(store: Flaky) -> None:
    execution, lease = started(store)
    say(store, lease, 1, 2, 3, 4)
    first = next(execution.events())
    store.trim_stream(execution.id, 1)
    end(store, lease)
    for after in (0, first.number or 0):
        trimmed, *others = execution.events(after=after)
        assert trimmed.kind == StreamKind.TRIMMED
        assert trimmed.data["up_to"] == trimmed.number
        assert seen(others) == [4, "ended"]
    last = store.read_events(execution.id, 0, 100)
    assert last is not None
    assert seen(execution.events(after=last.events[0].number or 0)) == ["ended"]


def test_a_trim_is_told_to_those_who_follow(store: Flaky) -> None:
    execution, lease = started(store)
    say(store, lease, 1)
    events = execution.events()
    assert seen([next(events)]) == [1]
    store.is_away = True
    say(store, lease, 2, 3, 4)
    store.trim_stream(execution.id, 1)
    end(store, lease)
    store.is_away = False
    assert seen(events) == ["trimmed", 4, "ended"]


def test_what_is_not_there(store: Flaky) -> None:
    execution, lease = started(store)
    nobody = Execution("0" * 8 + "-0000-4000-8000-" + "0" * 12, LocalRuntime(Registry(), store))
    with pytest.raises(ExecutionNotFound):
        next(nobody.events())
    say(store, lease, 1)
    events = execution.events()
    next(events)
    threading.Timer(0.1, lambda: store.purge(execution.id)).start()
    with pytest.raises(ExecutionNotFound):
        next(events)


def test_a_reader_waits_no_longer_than_it_wants(store: Flaky) -> None:
    execution, lease = started(store)
    say(store, lease, 1)
    events = execution.events(timeout=0.1)
    assert seen([next(events)]) == [1]
    with pytest.raises(TimeoutError):
        next(events)

    async def read() -> None:
        async for _ in execution.aio.events(timeout=0.1):
            pass

    with pytest.raises(TimeoutError):
        asyncio.run(read())
    with pytest.raises(TypeError):
        execution.events(timeout=timedelta(seconds=1))  # type: ignore[arg-type]
    with executing("another"), pytest.raises(WaitInsideAgent):
        execution.events()
    with execution.follow() as follower:
        assert seen(follower.read(0)) == [1]
        assert follower.read(0.05) == ()
        assert not follower.is_over


def test_the_hub_goes_when_nobody_follows(store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_hub, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(stream_hub, "_WAIT_SECONDS", 0.05)
    execution, lease = started(store)
    say(store, lease, 1)
    events = execution.events()
    next(events)
    hub = hub_of(store)
    del events
    give_up_at = time.monotonic() + 10
    while hub_of(store) is hub:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    end(store, lease)
    assert seen(execution.events()) == [1, "ended"]


def test_a_listener_that_fails_is_replaced(store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(PollingListener):
        def wait(self, timeout_seconds: float) -> frozenset[str]:
            raise RuntimeError(f"a fault of a driver within {timeout_seconds} s")

    listeners = iter([Broken(), PollingListener()])
    monkeypatch.setattr(store, "listen_streams", lambda: next(listeners))
    monkeypatch.setattr(stream_hub, "_LONGEST_RETRY_SECONDS", 0.05)
    execution, lease = started(store)
    threading.Timer(0.3, lambda: (say(store, lease, 1), end(store, lease))).start()
    assert seen(execution.events()) == [1, "ended"]


def test_text_in_pieces_says_where_it_begins_anew(store: Flaky) -> None:
    execution, lease = started(store)

    def text(seq: int, kind: StreamKind, delta: str = "", step: str = "ask", tried: int = 1) -> StreamEvent:
        data = {"delta": delta} if delta else {}
        return StreamEvent(kind=kind, data=data, at=AT, attempt=lease.token, seq=seq, step=step, tried=tried)

    events = (
        text(1, StreamKind.TEXT, "wro"),
        text(2, StreamKind.TEXT, "ng"),
        text(3, StreamKind.TEXT, "other", "beside"),
        text(4, StreamKind.TRY_FAILED),
        text(5, StreamKind.TEXT, "rig", tried=2),
        text(6, StreamKind.TEXT, "ht", tried=2),
        text(7, StreamKind.STEP_RECORDED, step="ask", tried=2),
        text(8, StreamKind.RECOVERED, step="", tried=0),
        text(9, StreamKind.TEXT, "again", "beside"),
    )
    store.append_events([StreamAppend(lease=lease, part=StreamPart(events=events))])
    end(store, lease)
    texts: dict[str, str] = {}
    for piece in execution.stream_text():
        texts[piece.step] = ("" if piece.begins_anew else texts.get(piece.step, "")) + str(piece)
    assert texts == {"ask": "right", "beside": "again"}

    async def read() -> list[str]:
        return [str(piece) async for piece in execution.aio.stream_text()]

    assert asyncio.run(read()) == ["wro", "ng", "other", "rig", "ht", "again"]


def test_a_tail_has_the_events_of_a_stream_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_hub, "_TAIL", 3)
    tail = stream_hub.StreamTail(5)
    text = '{"v":1,"kind":"emitted","at":1}'
    for first in range(6, 40, 2):
        tail.add(StoredStream(((first, text), (first + 1, text)), first + 1, 0, False))
    assert tail.after(5) is None
    reach = tail.after(tail.start)
    assert reach is not None
    assert [event.number for event in reach] == [*range(tail.start + 1, 40)]
    assert 3 <= len(reach) <= 8
