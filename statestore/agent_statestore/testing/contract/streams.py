"""The events of executions: their order, their fencing, and who is told of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint, LeasedWrite
from agent_statestore.clock import ManualClock, to_us
from agent_statestore.errors import ExecutionOver, InvalidRecord, LeaseLost, NotSerialisable, ValueTooLarge
from agent_statestore.records import JSONValue, Lease
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.streams.records import (
    MOST_EVENTS,
    MOST_READ,
    StreamAppend,
    StreamEvent,
    StreamKind,
    StreamPage,
    StreamPart,
)
from agent_statestore.testing.kit.builders import (
    AT,
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    create,
    done,
    event,
    intent,
    pause,
)
from agent_statestore.testing.kit.suite import Suite


def part_of(lease: Lease, first: int, *values: JSONValue) -> StreamPart:
    """Return events of the attempt of this lease, from this place on, with these values."""
    return StreamPart(
        events=tuple(
            StreamEvent(
                kind=StreamKind.EMITTED, data={"value": value}, at=AT, attempt=lease.token, seq=seq, step="s", tried=1
            )
            for seq, value in enumerate(values, first)
        )
    )


def append(store: Store, lease: Lease, first: int, *values: JSONValue) -> bool:
    (appended,) = store.append_events([StreamAppend(lease=lease, part=part_of(lease, first, *values))])
    return appended.accepted


def page_of(store: Store, execution_id: str, after: int = 0, limit: int = 1000) -> StreamPage:
    page = store.read_events(execution_id, after, limit)
    assert page is not None
    return page


def values_of(store: Store, execution_id: str, after: int = 0) -> list[JSONValue]:
    """Return the values of the agent's own events, and the kinds of the others."""
    events = page_of(store, execution_id, after).events
    return [event.data["value"] if event.kind == StreamKind.EMITTED else event.kind for event in events]


class StreamConformance(Suite):
    """`StreamPrimitives`."""

    def test_events_come_back_as_they_were_in_order_with_growing_numbers(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        assert page_of(store, execution_id) == StreamPage(events=(), last=0, trimmed_to=0, is_over=False)
        wanted = [
            StreamEvent(kind=StreamKind.STARTED, at=AT, attempt=1, seq=1),
            StreamEvent(kind=StreamKind.TEXT, data={"delta": "ü\0\u2028"}, at=AT, attempt=1, seq=2, step="s", tried=2),
            StreamEvent(kind="later", data={"a": [1, None, {"b": 2.5}]}, at=AT, attempt=1, seq=3),
        ]
        (appended,) = store.append_events([StreamAppend(lease=lease, part=StreamPart(events=tuple(wanted)))])
        assert appended.accepted
        page = page_of(store, execution_id)
        numbers = [event.number or 0 for event in page.events]
        assert numbers == sorted(set(numbers))
        assert numbers[0] >= to_us(store.now())
        assert page.last == numbers[-1] < 2**53
        assert not page.has_more
        for event_, want, number in zip(page.events, wanted, numbers, strict=True):
            for name in ("kind", "data", "at", "attempt", "seq", "step", "tried"):
                assert getattr(event_, name) == getattr(want, name), name
            assert event_.number == number

    def test_it_is_read_on_from_any_number(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        append(store, lease, 1, *range(7))
        read, after, pages = [], 0, 0
        while True:
            page = page_of(store, execution_id, after, limit=3)
            read += [event.data["value"] for event in page.events]
            pages += 1
            if not page.has_more:
                break
            after = page.events[-1].number or 0
        assert (read, pages) == ([*range(7)], 3)
        assert values_of(store, execution_id, page.last) == []
        assert values_of(store, execution_id, page.events[-1].number - 1 if page.events[-1].number else 0) == [6]

    def test_several_are_read_and_appended_at_once(self, store: Store) -> None:
        one, lease = claimed(store)
        other, second = claimed(store)
        idle = create(store)
        append(store, lease, 1, "before")
        cursor = page_of(store, one).last
        appends = [StreamAppend(lease=each, part=part_of(each, at, "x")) for each, at in ((lease, 2), (second, 1))]
        assert [answer_.accepted for answer_ in store.append_events(appends)] == [True, True]
        assert store.append_events([]) == ()
        unknown = "0" * 8 + "-0000-4000-8000-" + "0" * 12
        found = store.read_streams({one: cursor, other: 0, idle: 0, unknown: 0}, 10)
        assert {name: len(stream.events) for name, stream in found.items()} == {one: 1, other: 1, idle: 0}
        assert store.read_streams({}, 10) == {}
        assert store.read_events(unknown) is None

    def test_what_is_sent_again_is_there_once(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        for first, values in ((1, "ab"), (1, "ab"), (1, "abc"), (3, "c"), (2, "bcd"), (6, "f")):
            assert append(store, lease, first, *values)
        assert values_of(store, execution_id) == [*"abcdf"]

    def test_a_writer_without_the_lease_is_refused(self, store: Store, clock: ManualClock) -> None:
        execution_id, zombie = claimed(store)
        assert append(store, zombie, 1, "a")
        clock.advance(TTL + timedelta(seconds=1))
        assert not append(store, zombie, 2, "late")
        lease = claim(store, execution_id).lease
        assert not append(store, zombie, 2, "zombie")
        assert append(store, lease, 1, "successor")
        assert values_of(store, execution_id) == ["a", "successor"]
        store.release(lease)
        assert not append(store, lease, 2, "given back")
        gone_id, gone = claimed(store)
        store.delete_context(gone_id)
        assert not append(store, gone, 1, "deleted")
        assert store.read_events(gone_id) is None

    def test_one_that_is_refused_leaves_the_others_alone(self, store: Store) -> None:
        one, lease = claimed(store)
        _, stale = claimed(store)
        store.release(stale)
        other, second = claimed(store)
        appends = [StreamAppend(lease=each, part=part_of(each, 1, "x")) for each in (lease, stale, second)]
        assert [answer_.accepted for answer_ in store.append_events(appends)] == [True, False, True]
        assert values_of(store, one) == values_of(store, other) == ["x"]

    def test_numbers_grow_with_the_time_and_also_against_it(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        append(store, lease, 1, "a", "b")
        clock.advance(timedelta(seconds=3))
        now_us = to_us(store.now())
        append(store, lease, 3, "c")
        *_, third = page_of(store, execution_id).events
        assert (third.number or 0) >= now_us
        clock.advance(timedelta(seconds=-2))
        append(store, lease, 4, "d")
        assert values_of(store, execution_id) == [*"abcd"]
        assert page_of(store, execution_id).last == (third.number or 0) + 1

    def test_the_events_of_a_checkpoint_come_with_it_or_not_at_all(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        append(store, lease, 1, "a")
        first = Checkpoint(steps=(done(1),), stream=part_of(lease, 1, "a", "b"))
        for _ in range(2):  # a repetition is harmless
            store.checkpoint(execution_id, first, lease)
            assert values_of(store, execution_id) == [*"ab"]
        for refused, error in (
            (Checkpoint(steps=(done(7),), stream=part_of(lease, 3, "x")), Exception),
            (Checkpoint(steps=(done(2),), after_checkpoint="other", stream=part_of(lease, 3, "x")), Exception),
        ):
            with pytest.raises(error):
                store.checkpoint(execution_id, refused, lease)
        assert values_of(store, execution_id) == [*"ab"]
        # Of every form that a write may have.
        for number, change in enumerate(
            (
                Checkpoint(steps=(done(2),), stream=part_of(lease, 3, "c")),
                Checkpoint(steps=(done(3), done(4)), facts=("f",), stream=part_of(lease, 4, "d")),
                Checkpoint(working_memory={"k": 1}, stream=part_of(lease, 5, "e")),
                Checkpoint(state=AgentState.USING_TOOL, stream=part_of(lease, 6, "f")),
                Checkpoint(state=AgentState.COMPLETED, output=1, stream=part_of(lease, 7, "g")),
            )
        ):
            store.checkpoint(execution_id, change, lease)
            assert values_of(store, execution_id) == [*"abcdefg"[: number + 3]]
        assert page_of(store, execution_id).is_over
        assert not append(store, lease, 8, "over")
        with pytest.raises((ExecutionOver, LeaseLost)):
            store.checkpoint(execution_id, Checkpoint(steps=(done(5),), stream=part_of(lease, 8, "h")), lease)
        assert values_of(store, execution_id) == [*"abcdefg"]

    def test_a_checkpoint_tells_of_its_steps_behind_what_it_brings(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), tells_steps=1), lease)
        store.checkpoint(
            execution_id,
            Checkpoint(steps=(intent(2), done(3, "x:1")), stream=part_of(lease, 2, "a"), tells_steps=3),
            lease,
        )
        (outcome,) = store.checkpoint_each(
            [LeasedWrite(checkpoint=Checkpoint(steps=(done(2),), tells_steps=4), lease=lease)]
        )
        assert not isinstance(outcome, Exception)
        assert append(store, lease, 5, "b")
        store.checkpoint(execution_id, Checkpoint(steps=(intent(4),), tells_steps=6), lease)
        page = page_of(store, execution_id)
        told = [(event_.kind, event_.step, event_.data.get("number"), event_.seq) for event_ in page.events]
        assert told == [
            ("step_recorded", "step-1", 1, 1),
            ("emitted", "s", None, 2),
            ("step_recorded", "x:1", 3, 3),
            ("step_recorded", "step-2", 2, 4),
            ("emitted", "s", None, 5),
        ]
        first = page.events[0]
        assert (first.attempt, first.tried, to_us(first.at)) == (1, 2, first.number)
        assert first.data == {"number": 1, "action": "step", "success": True, "tool": "search"}

    def test_writes_together_bring_theirs(self, store: Store) -> None:
        leases = [claimed(store)[1] for _ in range(3)]
        stale = claimed(store)[1]
        store.release(stale)
        writes = [
            LeasedWrite(checkpoint=Checkpoint(steps=(done(1),), stream=part_of(lease, 1, *"ab")), lease=lease)
            for lease in (*leases, stale)
        ]
        for _ in range(2):
            store.checkpoint_each(writes)
        assert [values_of(store, lease.execution_id) for lease in leases] == [[*"ab"]] * 3
        assert values_of(store, stale.execution_id) == []

    def test_a_pause_and_a_write_without_a_lease_bring_theirs(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(stream=part_of(lease, 1, "paused")), lease)
        outside = StreamPart(events=(StreamEvent(kind=StreamKind.ENDED, data={"state": "cancelled"}, at=AT),))
        store.checkpoint(execution_id, Checkpoint(state=AgentState.CANCELLED, stream=outside))
        assert values_of(store, execution_id) == ["paused", "ended"]
        assert page_of(store, execution_id).events[-1].attempt == 0

    def test_signals_are_told(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(), lease)
        sent = (answer("forty"), event({"n": 1}, key="news"), cancel())
        for signal in (*sent, *sent):
            store.send(execution_id, signal)
        told = page_of(store, execution_id).events
        assert [(event_.kind, event_.data.get("wait"), event_.data.get("value")) for event_ in told] == [
            ("answered", "input", "forty"),
            ("answered", "event", {"n": 1}),
            ("cancel_requested", None, None),
        ]
        assert {event_.data["sender"] for event_ in told} == {"ada"}
        assert all(to_us(event_.at) == event_.number for event_ in told[:1])

    def test_a_part_may_be_large(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 1, *range(5_000))), lease)
        assert append(store, lease, 4_901, *range(4_900, 6_000))
        assert [*self._all_values(store, execution_id)] == [*range(6_000)]

    @staticmethod
    def _all_values(store: Store, execution_id: str) -> Iterator[JSONValue]:
        after = 0
        while (page := page_of(store, execution_id, after)).events:
            yield from (event_.data["value"] for event_ in page.events)
            after = page.events[-1].number or 0

    def test_it_counts_for_no_limit_of_the_context(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.max_context_bytes, most = 500, store.max_context_bytes
        try:
            assert append(store, lease, 1, "x" * 2_000)
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 2, "y" * 2_000)), lease)
        finally:
            store.max_context_bytes = most
        assert len(values_of(store, execution_id)) == 2

    def test_what_cannot_be_stored_is_refused_before_anything_is(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        _, other = claimed(store)
        for value, error in ((object(), NotSerialisable), ("x" * (store.max_value_bytes + 1), ValueTooLarge)):
            with pytest.raises(error):
                append(store, lease, 1, value)
            appends = [StreamAppend(lease=each, part=part_of(each, 1, v)) for each, v in ((other, 1), (lease, value))]
            with pytest.raises(error):
                store.append_events(appends)
            with pytest.raises(error):
                store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 1, value)), lease)
        assert values_of(store, execution_id) == values_of(store, other.execution_id) == []
        for events in (
            (),
            (StreamEvent(kind="a", at=AT, attempt=1, seq=0),),
            (StreamEvent(kind="a", at=AT, attempt=0, seq=1),),
            (StreamEvent(kind="a", at=AT, attempt=1, seq=1), StreamEvent(kind="a", at=AT, attempt=1, seq=3)),
            (StreamEvent(kind="a", at=AT, attempt=1, seq=1), StreamEvent(kind="a", at=AT, attempt=2, seq=2)),
            (StreamEvent(kind="", at=AT),),
            (StreamEvent(kind="a", at=AT),) * (MOST_EVENTS + 1),
        ):
            with pytest.raises(InvalidRecord):
                StreamPart(events=events)
        for limit in (0, -1, MOST_READ + 1):
            with pytest.raises(InvalidRecord):
                store.read_events(execution_id, 0, limit)

    def test_the_oldest_are_trimmed_and_readers_are_told(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        assert store.trim_stream(execution_id, 0) == 0
        append(store, lease, 1, *range(5))
        numbers = [event_.number for event_ in page_of(store, execution_id).events]
        assert store.trim_stream(execution_id, 5) == 0
        assert page_of(store, execution_id).trimmed_to == 0
        assert store.trim_stream(execution_id, 2) == 3
        page = page_of(store, execution_id)
        assert [event_.number for event_ in page.events] == numbers[3:]
        assert (page.trimmed_to, page.last) == (numbers[2], numbers[4])
        assert store.trim_stream(execution_id, 2) == 0
        assert append(store, lease, 5, 4, 5)  # it still knows what it had
        assert store.trim_stream(execution_id, 0) == 3
        page = page_of(store, execution_id)
        assert page.events == ()
        assert page.trimmed_to == page.last > (numbers[4] or 0)
        append(store, lease, 6, 5, 6)
        assert values_of(store, execution_id) == [6]
        assert page_of(store, execution_id).last > page.last

    def test_it_goes_with_its_execution(self, store: Store) -> None:
        for remove in (store.purge, store.delete_context):
            execution_id, lease = claimed(store)
            append(store, lease, 1, "a")
            assert remove(execution_id)
            assert store.read_events(execution_id) is None

    def test_it_moves_with_its_execution(self, store: Store, other_store: Store) -> None:
        execution_id, lease = claimed(store)
        append(store, lease, 1, *range(5))
        store.trim_stream(execution_id, 3)
        for source, target in ((store, other_store), (other_store, store)):
            exported = source.export(execution_id)
            assert exported is not None
            if target is store:
                store.purge(execution_id)
            assert target.restore(exported)
            assert target.export(execution_id) == replace(exported, leased_until_us=0)
            assert page_of(target, execution_id) == page_of(other_store, execution_id)
        last = page_of(store, execution_id).last
        assert append(store, claim(store, execution_id).lease, 1, "on")
        page = page_of(store, execution_id, last)
        assert [event_.data["value"] for event_ in page.events] == ["on"]
        assert page.last > last

    def test_a_listener_is_told_of_each_kind_of_write(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        quiet, _ = claimed(store)
        listener = store.listen_streams()
        try:
            listener.follow([execution_id, quiet])
            # What readers are told of is remembered before the first write; a store may need a moment to notice them.
            store.read_events(execution_id)

            def told() -> None:
                store.tell_readers([execution_id])
                for _ in range(100):
                    if execution_id in listener.wait(0.2):
                        return
                raise AssertionError("nobody was told")

            append(store, lease, 1, "a")
            told()
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 2, "b")), lease)
            told()
            store.send(execution_id, cancel())
            told()
            listener.unfollow(execution_id)
            append(store, lease, 3, "c")
            store.tell_readers([execution_id])
            for _ in range(3):
                assert execution_id not in listener.wait(0.05)
        finally:
            listener.close()
            listener.close()

    def test_many_threads_append_without_loss(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        _, other = claimed(store)

        def write(each: Lease) -> None:
            for seq in range(1, 21):
                assert append(store, each, seq, seq)

        def speak(_: int) -> None:
            for number in range(10):
                store.send(execution_id, event(number, key="news"))

        with ThreadPoolExecutor(4) as pool:
            writing, speaking = pool.map(write, (lease, other)), pool.map(speak, range(2))
            assert [*writing, *speaking] == [None] * 4
        page = page_of(store, execution_id)
        numbers = [event_.number or 0 for event_ in page.events]
        assert numbers == sorted(set(numbers))
        assert [event_.data["value"] for event_ in page.events if event_.attempt] == [*range(1, 21)]
        assert len(page.events) == 40
