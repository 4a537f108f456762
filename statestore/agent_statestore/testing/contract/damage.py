"""Damaged executions: one is unreadable by itself, and no other notices it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from agent_statestore.checkpoint import Checkpoint, new_execution_id
from agent_statestore.clock import ManualClock
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.errors import ExecutionUnreadable, FormatTooNew
from agent_statestore.moving.copying import CopyOutcome, copy
from agent_statestore.query import Query
from agent_statestore.records import ErrorInfo, ExecutionSummary
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.removing import filled
from agent_statestore.testing.kit.builders import GRACE, TTL, claimed, context_of, create, done, message, summary_of
from agent_statestore.testing.kit.suite import Suite

# Spoils one part of a stored execution, past the store: `damage(execution_id, part)`. The parts are `CONTENTS`, and two
# that leave nothing but what a store keeps of an execution elsewhere: "all but traces", "all but the due time".
Damage = Callable[[str, str], None]

# header: its `waits` are no JSON. input: the same. step: the last one is. steps: the last one is not there.
# message: it is no JSON.
CONTENTS: Final = ("header", "input", "step", "steps", "message")

CORRUPT = ErrorInfo(type="tests:Corrupt", message="unreadable")
LATER = timedelta(hours=1)


def worked_on(store: Store) -> str:
    """Create an execution that has three steps and a message, and whose lease was given back."""
    execution_id, lease = claimed(store)
    store.checkpoint(execution_id, Checkpoint(steps=tuple(done(n) for n in (1, 2, 3)), messages=(message("m"),)), lease)
    store.release(lease)
    return execution_id


def due_ids(store: Store, limit: int = 100) -> Sequence[str]:
    """Return the executions that are due."""
    return sorted(due.execution_id for due in store.take_due(limit, GRACE))


def pages(store: Store) -> Iterator[ExecutionSummary]:
    """Yield all executions, page by page."""
    query = Query(limit=50)
    while True:
        page = store.find(query)
        yield from page.items
        if page.next_cursor is None:
            return
        query = replace(query, cursor=page.next_cursor)


# Texts that nobody has written so, in the place of each text that a store keeps.
TEXTS: Final = (
    *("", "{", "null", "7", "[]", "[[]]", '"x"', '{"v":1}', '{"v":"x"}', '{"v":[]}', '{"v":-1}', '{"v":99}'),
    *('{"v":1,"n":"x","kind":[],"id":{},"at":"x","waits":7,"type":[]}', "[" * 20_000, '{"v":1,"at":1e400}'),
)
_OF_HEADER: Final = ("waits", "awaited", "input", "metadata", "output", "error")


def damages(good: ExportedExecution) -> Iterator[tuple[str, ExportedExecution]]:
    """Yield each kind of damage: its name, and the execution with one of its texts replaced."""
    for text in TEXTS:
        for name in _OF_HEADER:
            yield f"{name}: {text:.20}", replace(good, header={**good.header, name: text})
        *steps, last = good.steps
        yield f"step: {text:.20}", replace(good, steps=(*steps, replace(last, text=text)))
        yield f"message: {text:.20}", replace(good, messages=(text,))
        yield f"fact: {text:.20}", replace(good, facts=(text,))
        yield f"passage: {text:.20}", replace(good, rag_context=(text,))
        yield f"memory: {text:.20}", replace(good, working_memory=(("k", text),))
        yield f"entity: {text:.20}", replace(good, entities=(("e", text),))
        yield f"signal: {text:.20}", replace(good, signals=tuple(each._replace(text=text) for each in good.signals))
        yield f"audit: {text:.20}", replace(good, audit=tuple(each._replace(signal=text) for each in good.audit))


class DamageConformance(Suite):
    """The rules for a backend whose test says how its data can be damaged. Override `damage`."""

    @pytest.fixture
    def damage(self, store: Store) -> Damage:
        """Return a function that damages an execution of `store`. The backend's test class overrides this."""
        raise NotImplementedError("override the fixture `damage`")

    def test_no_other_execution_notices_a_damaged_one(self, store: Store, other_store: Store, damage: Damage) -> None:
        good = worked_on(store)
        bad = {part: worked_on(store) for part in CONTENTS}
        for part, execution_id in bad.items():
            damage(execution_id, part)
        everything = sorted([good, *bad.values()])
        found = {item.execution_id: item for item in store.find().items}
        assert sorted(found) == everything
        assert {part for part, execution_id in bad.items() if found[execution_id].unreadable} == {"header"}
        assert found[good] == summary_of(store, good)
        # Also page by page, and whichever of them ends a page.
        paged, cursor = [], None
        while True:
            page = store.find(Query(limit=1, cursor=cursor))
            paged += [item.execution_id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sorted(paged) == everything
        assert store.stats().agents[0].states == {AgentState.THINKING: len(everything)}
        assert due_ids(store) == everything
        store.mark_rung([(execution_id, 1) for execution_id in everything], TTL, LATER)
        assert due_ids(store) == []
        copied = copy(store, other_store, threads=1)
        assert copied.total == len(everything)
        assert context_of(other_store, good).steps == context_of(store, good).steps
        assert not {problem.execution_id for problem in copied.problems} & {good}
        assert CopyOutcome.COPIED in copied.counts
        assert store.claim(good, "host:1", TTL) is not None

    def test_no_text_in_the_place_of_another_stops_others(
        self, store: Store, other_store: Store, record_property: Callable[[str, object], None]
    ) -> None:
        original = other_store.export(filled(other_store))
        assert original is not None
        kinds = {}
        for kind, damaged in damages(replace(original, leased_until_us=0)):
            execution_id = new_execution_id()
            assert store.restore(replace(damaged, header={**damaged.header, "execution_id": execution_id})), kind
            kinds[execution_id] = kind
        good = worked_on(store)
        met = [item.execution_id for item in pages(store)]
        assert sorted(met) == sorted([good, *kinds])
        assert sum(store.stats().agents[0].states.values()) == len(kinds) + 1
        assert good in due_ids(store, len(kinds) + 1)
        reads: tuple[Callable[[str], Any], ...] = (
            *(store.get_summary, store.get_context, store.get_steps, store.get_audit),
            lambda execution_id: store.claim(execution_id, "host:1", TTL),
        )
        faults = []
        for execution_id, kind in kinds.items():
            for read in reads:
                try:
                    read(execution_id)
                except (ExecutionUnreadable, FormatTooNew):
                    pass  # refused by name
                except Exception as error:  # noqa: BLE001 - each is a fault, whatever it is
                    faults.append(f"{kind}: {type(error).__name__}: {error!s:.100}")
            assert store.purge(execution_id), kind
        assert not faults, "\n".join(faults)
        assert [item.execution_id for item in store.find().items] == [good]
        assert store.claim(good, "host:1", TTL) is not None
        record_property("attacked", ("damages", len(kinds)))

    def test_a_damaged_execution_is_claimed_to_be_ended(self, store: Store, damage: Damage) -> None:
        for part in CONTENTS:
            execution_id = worked_on(store)
            damage(execution_id, part)
            with pytest.raises(ExecutionUnreadable) as read:
                store.get_context(execution_id)
            assert (part, read.value.execution_id) == (part, execution_id)
            assert summary_of(store, execution_id).step_count == 3, part
            with pytest.raises(ExecutionUnreadable) as met:
                store.claim(execution_id, "host:1", TTL)
            lease = met.value.lease
            assert lease is not None, part
            store.checkpoint(execution_id, Checkpoint(state=AgentState.FAILED, error=CORRUPT), lease)  # type: ignore[arg-type]
            summary = summary_of(store, execution_id)
            assert (summary.state, summary.error, summary.due_at) == (AgentState.FAILED, CORRUPT, None), part
            assert store.claim(execution_id, "host:1", TTL) is None, part
            assert store.delete_context(execution_id), part

    def test_steps_that_are_damaged_are_said_to_be(self, store: Store, damage: Damage) -> None:
        execution_id = worked_on(store)
        damage(execution_id, "step")
        with pytest.raises(ExecutionUnreadable) as read:
            store.get_steps(execution_id)
        assert (read.value.execution_id, read.value.part) == (execution_id, "steps")

    def test_what_is_left_of_an_execution_stops_no_sweep(
        self, store: Store, clock: ManualClock, damage: Damage
    ) -> None:
        for part in ("all but traces", "all but the due time"):
            gone, good = create(store), create(store)
            damage(gone, part)
            clock.advance(LATER)
            assert good in due_ids(store), part
            store.mark_rung([(gone, 0), (good, 0)], TTL, TTL)
            clock.advance(LATER)
            assert due_ids(store) == [good], part
            assert [item.execution_id for item in store.find().items] == [good], part
            store.delete_context(good)
