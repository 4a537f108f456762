"""`export` and `restore`: an execution goes from store to store, and nothing of it is lost or changed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, to_us
from agent_statestore.codec.exported import EXPORTED_FIELDS, ExportedExecution
from agent_statestore.envelope import dump
from agent_statestore.errors import FormatTooNew, IdempotencyKeyTaken
from agent_statestore.query import Query
from agent_statestore.records import RagChunk, SignalKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.creating import UNKNOWN_IDS
from agent_statestore.testing.contract.formats import newer_package
from agent_statestore.testing.kit.builders import (
    INSTANT,
    TTL,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    event,
    message,
    move,
    signal,
    summary_of,
)
from agent_statestore.testing.kit.stories import METADATA, SITUATIONS, export_of, story
from agent_statestore.testing.kit.suite import Suite

every_situation = pytest.mark.parametrize("situate", SITUATIONS.values(), ids=SITUATIONS)
Situate = Callable[[Store, ManualClock], str]

NUMBERS = {
    *("format", "version", "token", "crashes", "cancel_requested", "not_before_us", "step_count"),
    *("created_us", "updated_us"),
}
NUMBERS_OR_NOTHING = {"priority", "due_us", "ended_us"}


def assert_arrived(store: Store, exported: ExportedExecution, source: Store) -> None:
    """Check that the store has exactly what was exported from the source, which still has it."""
    execution_id = exported.execution_id
    there = export_of(store, execution_id)
    assert there.digest == exported.digest
    assert there == replace(exported, leased_until_us=0)
    expected = replace(context_of(source, execution_id), owner=None, lease_expires_at=None)
    assert context_of(store, execution_id) == expected
    assert store.get_steps(execution_id, after=1) == expected.steps[1:]
    assert store.get_audit(execution_id) == source.get_audit(execution_id)
    summary = summary_of(store, execution_id)
    for filters in ({"session_id": summary.session_id}, {"user_id": summary.user_id}, {"agent_id": summary.agent_id}):
        assert store.find(Query(**filters, states=[summary.state])).items == (summary,)
    assert store.find(Query(states=set(AgentState) - {summary.state})).items == ()
    assert store.find_leases("") == ()
    if summary.idempotency_key is not None:
        assert store.get_by_idempotency_key(summary.agent_id, summary.idempotency_key) == expected


class MovingConformance(Suite):
    """Exports, restores, digests."""

    @every_situation
    def test_an_execution_goes_to_another_store_and_back_unchanged(
        self, store: Store, other_store: Store, clock: ManualClock, situate: Situate
    ) -> None:
        exported = export_of(store, situate(store, clock))
        clock.advance(INSTANT)
        assert other_store.restore(exported) is True
        assert_arrived(other_store, exported, store)
        back = export_of(other_store, exported.execution_id)
        store.purge(exported.execution_id)
        clock.advance(INSTANT)
        assert store.restore(back) is True
        assert_arrived(store, exported, other_store)

    def test_two_stores_with_the_same_story_export_the_same(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        for here, there in zip(story(store), story(other_store), strict=True):
            mine, others = export_of(store, here), export_of(other_store, there)
            alike = replace(others, header={**others.header, "execution_id": here})
            assert mine == alike
            assert mine.digest == alike.digest
            assert mine.place == others.place
            clock.advance(INSTANT)

    @pytest.mark.parametrize("execution_id", UNKNOWN_IDS)
    def test_an_unknown_execution_has_no_export(self, store: Store, execution_id: str) -> None:
        create(store)
        assert store.export(execution_id) is None

    @every_situation
    def test_an_export_has_every_field_in_the_type_in_which_it_is_stored(
        self, store: Store, clock: ManualClock, situate: Situate
    ) -> None:
        exported = export_of(store, situate(store, clock))
        assert set(exported.header) == set(EXPORTED_FIELDS)
        for name, value in exported.header.items():
            if name in NUMBERS or (name in NUMBERS_OR_NOTHING and value is not None):
                assert type(value) is int, name
            else:
                assert value is None or type(value) is str, name
        texts = (*exported.messages, *exported.facts, *exported.rag_context)
        pairs = (*exported.working_memory, *exported.entities)
        assert {type(text) for text in (*texts, *(text for pair in pairs for text in pair))} <= {str}
        assert [type(step.is_done) for step in exported.steps] == [bool] * len(exported.steps)
        assert exported.working_memory == tuple(sorted(exported.working_memory))
        assert exported.entities == tuple(sorted(exported.entities))

    def test_a_text_is_exported_as_it_was_written(self, store: Store) -> None:
        execution_id = create(store, input=METADATA, metadata=METADATA)
        store.set_working_memory(execution_id, "k", METADATA)
        exported = export_of(store, execution_id)
        expected = dump(METADATA, "metadata")
        assert exported.header["metadata"] == exported.header["input"] == expected
        assert exported.working_memory == (("k", expected),)

    def test_unconsumed_signals_come_in_their_order_of_arrival_and_then_consumed_ones_by_id(self, store: Store) -> None:
        execution_id = create(store)
        for name in "mzbaykc":
            store.send(execution_id, signal(SignalKind.EVENT, signal_id=name))
        store.checkpoint(execution_id, Checkpoint(consumed=("z", "k", "a")))
        signals = export_of(store, execution_id).signals
        assert "".join(item.signal_id for item in signals) == "mbycakz"
        assert [item.text is None for item in signals] == [False] * 4 + [True] * 3
        assert {(item.kind, item.key, item.is_answer) for item in signals} == {("event", "question", False)}

    def test_an_export_tells_of_a_living_lease(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        assert export_of(store, execution_id).leased_until_us == to_us(lease.expires_at)
        store.release(lease)
        assert export_of(store, execution_id).leased_until_us == 0
        assert export_of(store, create(store)).leased_until_us == 0

    def test_an_execution_of_a_newer_format_is_not_exported(self, store: Store) -> None:
        with newer_package(store):
            execution_id = create(store)
        with pytest.raises(FormatTooNew):
            store.export(execution_id)
        with newer_package(store):
            assert store.export(execution_id) is not None

    def test_an_export_shares_nothing_with_what_is_stored(self, store: Store, other_store: Store) -> None:
        exported = export_of(store, create(store))
        before = context_of(store, exported.execution_id)
        other_store.restore(exported)
        exported.header.update(state="completed", version=9)
        assert context_of(store, exported.execution_id) == before
        store.purge(exported.execution_id)
        again = export_of(other_store, exported.execution_id)
        store.restore(again)
        again.header.update(state="completed", version=9)
        assert context_of(store, exported.execution_id) == context_of(other_store, exported.execution_id) == before

    # -- copies --------------------------------------------------------------------------------------------------------

    @every_situation
    def test_restoring_again_changes_nothing(
        self, store: Store, other_store: Store, clock: ManualClock, situate: Situate
    ) -> None:
        exported = export_of(other_store, situate(other_store, clock))
        assert store.restore(exported) is True
        due_ids(store)  # this store decides from now on when the bell is rung next
        before = export_of(store, exported.execution_id)
        clock.advance(INSTANT)
        assert store.restore(exported) is False
        assert other_store.restore(exported) is False
        assert export_of(store, exported.execution_id) == before

    def test_a_newer_copy_replaces_an_older_one_with_everything_of_it(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        execution_id = create(store, session_id="s", idempotency_key="key")
        other_store.restore(export_of(store, execution_id))
        for name in ("a", "b"):
            other_store.checkpoint(
                execution_id,
                Checkpoint(
                    steps=tuple(done(n, name) for n in range(len(context_of(other_store, execution_id).steps) + 1, 4)),
                    messages=(message("newer"),),
                    working_memory={name: "newer"},
                    entities={name: "newer"},
                    facts=("newer",),
                    rag_context=(RagChunk(content="newer"),),
                ),
            )
        other_store.send(execution_id, event("newer"))
        move(other_store, execution_id, AgentState.WAITING_FOR_INPUT)
        # The copy here has gone its own way in the meantime, but not as far.
        store.checkpoint(
            execution_id,
            Checkpoint(
                steps=tuple(done(n, output="older") for n in range(1, 8)),
                messages=(message("older"), message("older")),
                working_memory={"a": "older", "c": "older"},
                entities={"a": "older", "c": "older"},
                facts=("older", "older", "older"),
                rag_context=(RagChunk(content="older"),) * 3,
            ),
        )
        store.send(execution_id, event("older"))
        store.send(execution_id, event("older"))
        newer = export_of(other_store, execution_id)
        clock.advance(INSTANT)
        assert store.restore(newer) is True
        assert_arrived(store, newer, other_store)
        assert due_ids(store) == []

    @pytest.mark.parametrize("write", ["checkpoint", "claim", "decision"])
    def test_the_place_says_which_copy_is_newer(
        self, store: Store, other_store: Store, clock: ManualClock, write: str
    ) -> None:
        execution_id = create(store)
        older = export_of(store, execution_id)
        if write == "checkpoint":
            store.checkpoint(execution_id, Checkpoint())
        elif write == "claim":
            claim(store, execution_id)
            clock.advance(TTL)
        else:
            store.send(execution_id, cancel())
        newer = export_of(store, execution_id)
        assert newer.place > older.place
        assert store.restore(older) is False
        assert export_of(store, execution_id) == newer
        other_store.restore(newer)
        store.purge(execution_id)
        assert store.restore(older) is True
        assert store.restore(newer) is True
        assert_arrived(store, newer, other_store)
        assert store.restore(older) is False
        assert export_of(store, execution_id).place == newer.place

    def test_a_copy_under_a_living_lease_is_not_replaced(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        execution_id = create(other_store)
        store.restore(export_of(other_store, execution_id))
        for number in range(3):
            other_store.add_message(execution_id, "user", number)
        newer = export_of(other_store, execution_id)
        lease = claim(store, execution_id).lease
        before = export_of(store, execution_id)
        assert store.restore(newer) is False
        assert export_of(store, execution_id) == before
        store.checkpoint(execution_id, Checkpoint(), lease)
        clock.advance(TTL)
        assert store.restore(newer) is True
        assert_arrived(store, newer, other_store)
        assert store.renew([lease], TTL).lost == {execution_id}

    # -- idempotency keys ----------------------------------------------------------------------------------------------

    def test_an_execution_whose_key_another_one_has_here_is_refused(self, store: Store, other_store: Store) -> None:
        exported = export_of(other_store, create(other_store, idempotency_key="key", session_id="s"))
        own = create(store, idempotency_key="key")
        before = export_of(store, own)
        with pytest.raises(IdempotencyKeyTaken) as refused:
            store.restore(exported)
        assert (refused.value.agent_id, refused.value.idempotency_key) == ("agent", "key")
        assert store.get_context(exported.execution_id) is None
        assert store.get_audit(exported.execution_id) == ()
        assert store.find(Query(session_id="s")).items == ()
        assert export_of(store, own) == before
        assert create(store, idempotency_key="key") == own
        store.delete_context(own)
        assert store.restore(exported) is True
        assert create(store, idempotency_key="key") == exported.execution_id

    def test_another_agents_key_is_another_key(self, store: Store, other_store: Store) -> None:
        here = create(store, "agent", idempotency_key="key")
        there = create(other_store, "Agent", idempotency_key="key")
        assert store.restore(export_of(other_store, there)) is True
        assert [create(store, agent_id, idempotency_key="key") for agent_id in ("agent", "Agent")] == [here, there]
