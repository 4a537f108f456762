"""Texts that look alike are told apart: by case, by accents, by spaces at the end, by their last character."""

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock
from agent_statestore.errors import ExecutionNotFound, QuestionNotAsked
from agent_statestore.query import Query
from agent_statestore.records import SignalKind, WaitKind
from agent_statestore.store import Store
from agent_statestore.testing.contract.contents import KEYS
from agent_statestore.testing.kit.builders import TTL, claim, context_of, create, done, intent, pause, signal, stamped
from agent_statestore.testing.kit.suite import Suite

LONG = "\N{SLIGHTLY SMILING FACE}" * 254
ALIKE = [
    *KEYS,
    "KEY",
    "key",
    "Key",
    "key ",
    "ß",
    "ss",
    "SS",
    "i",
    "I",
    "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
    f"{LONG}a",
    f"{LONG}b",
]


class AlikeConformance(Suite):
    """Names, keys and ids."""

    def test_idempotency_keys_are_told_apart(self, store: Store) -> None:
        made = {key: create(store, idempotency_key=key) for key in ALIKE}
        assert len(set(made.values())) == len(ALIKE)
        for key, execution_id in made.items():
            assert create(store, idempotency_key=key) == execution_id
            found = store.get_by_idempotency_key("agent", key)
            assert found is not None
            assert found.execution_id == execution_id

    def test_agents_sessions_and_users_are_told_apart(self, store: Store) -> None:
        made = {name: create(store, name, session_id=name, user_id=name, idempotency_key="key") for name in ALIKE}
        assert len(set(made.values())) == len(ALIKE)
        for name, execution_id in made.items():
            for filters in ({"agent_id": name}, {"session_id": name}, {"user_id": name}):
                found = store.find(Query(**filters)).items  # type: ignore[arg-type]
                assert [item.execution_id for item in found] == [execution_id]

    def test_execution_ids_are_told_apart(self, store: Store) -> None:
        execution_id = create(store)
        for other in (execution_id.upper(), f"{execution_id} ", f" {execution_id}", execution_id[:-1]):
            assert other != execution_id
            assert store.get_context(other) is None
            assert store.claim(other, "host:1", TTL) is None
            assert store.get_audit(other) == ()
            assert store.purge(other) is False
            with pytest.raises(ExecutionNotFound):
                store.checkpoint(other, Checkpoint())
        assert store.get_context(execution_id) is not None

    def test_signals_are_told_apart(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        sent = [stamped(signal(SignalKind.EVENT, key="question", signal_id=name), clock) for name in ALIKE]
        for item in sent:
            store.send(execution_id, item)
        assert context_of(store, execution_id).signals == tuple(sent)
        store.checkpoint(execution_id, Checkpoint(consumed=("Key", "a ", f"{LONG}a")))
        kept = [item for item in sent if item.signal_id not in ("Key", "a ", f"{LONG}a")]
        assert context_of(store, execution_id).signals == tuple(kept)

    @pytest.mark.parametrize("asked", ["question", "quéstion", f"{LONG}a"])
    def test_questions_are_told_apart(self, store: Store, asked: str) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, pause(key=asked))
        for key in {"question", "Question", "question ", "quéstion", "que\u0301stion", f"{LONG}a", f"{LONG}b"} - {
            asked
        }:
            with pytest.raises(QuestionNotAsked):
                store.send(execution_id, signal(SignalKind.ANSWER, key))
        assert store.send(execution_id, signal(SignalKind.ANSWER, asked)).woke is True

    def test_a_pause_is_not_ended_by_a_signal_for_one_that_looks_alike(self, store: Store) -> None:
        execution_id = create(store)
        for key in ("Question", "question ", "quéstion"):
            store.send(execution_id, signal(SignalKind.EVENT, key))
        assert store.checkpoint(execution_id, pause(WaitKind.EVENT)).due_now is False
        assert store.send(execution_id, signal(SignalKind.EVENT, "QUESTION")).woke is False
        assert store.send(execution_id, signal(SignalKind.EVENT)).woke is True

    def test_checkpoints_are_told_apart(self, store: Store) -> None:
        execution_id = create(store)
        for number, name in enumerate(("id", "ID", "id ", "íd", "id"), start=1):
            assert store.checkpoint(execution_id, Checkpoint(facts=(name,), checkpoint_id=name)).version == number
        assert context_of(store, execution_id).memory.facts == ("id", "ID", "id ", "íd", "id")

    def test_owners_are_told_apart(self, store: Store) -> None:
        made = {owner: create(store) for owner in ("host:1", "HOST:1", "hóst:1", "host :1")}
        for owner, execution_id in made.items():
            claim(store, execution_id, owner)
        for owner, execution_id in made.items():
            (found,) = store.find_leases(owner[:-1])
            assert (found.execution_id, found.owner) == (execution_id, owner)

    def test_steps_are_told_apart(self, store: Store) -> None:
        execution_id = create(store)
        names = ("search", "Search", "search ", "séarch")
        store.checkpoint(execution_id, Checkpoint(steps=tuple(intent(n, name) for n, name in enumerate(names, 1))))
        store.checkpoint(execution_id, Checkpoint(steps=tuple(done(n, name) for n, name in enumerate(names, 1))))
        assert [step.name for step in store.get_steps(execution_id)] == list(names)
