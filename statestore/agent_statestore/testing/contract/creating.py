"""Creating executions and reading them."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from agent_statestore.checkpoint import Checkpoint, NewExecution
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import (
    ExecutionIdTaken,
    ExecutionNotFound,
    IdempotencyConflict,
    InvalidRecord,
    NotSerialisable,
    ValueTooLarge,
)
from agent_statestore.query import Query
from agent_statestore.records import AgentContext, JSONValue, Memory
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    INSTANT,
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    message,
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite

UNKNOWN_IDS = ["unknown", "", "*", "a:{b}:c", "' OR 1=1 --", "\N{SLIGHTLY SMILING FACE}", "x" * 300]


class CreatingConformance(Suite):
    """`create`, `get_context`, `get_summary`, `get_steps`, and the answers for an execution that does not exist."""

    def test_a_new_execution_is_idle_and_carries_what_it_was_given(self, store: Store, clock: ManualClock) -> None:
        made = store.create_context(
            "agent",
            {"question": [1, None]},
            session_id="session",
            user_id="user",
            metadata={"tags": ["a"]},
            idempotency_key="key",
            parent_execution_id="parent",
            queue="gpu",
            priority=7,
            first_ring=timedelta(seconds=3),
        )
        now = from_us(clock.now_us())
        assert made == AgentContext(
            execution_id=made.execution_id,
            agent_id="agent",
            session_id="session",
            user_id="user",
            parent_execution_id="parent",
            idempotency_key="key",
            queue="gpu",
            priority=7,
            metadata={"tags": ["a"]},
            state=AgentState.IDLE,
            due_at=now + timedelta(seconds=3),
            created_at=now,
            updated_at=now,
            input={"question": [1, None]},
            memory=Memory(),
        )
        assert store.get_context(made.execution_id) == made

    def test_what_was_not_given_is_none(self, store: Store) -> None:
        made = store.create(NewExecution(agent_id="agent"))
        assert (made.input, made.session_id, made.user_id, made.queue, made.priority) == (None,) * 5
        assert (made.metadata, made.attempt, made.version, made.crashes, made.step_count) == ({}, 0, 0, 0, 0)
        assert (made.owner, made.lease_expires_at, made.waiting, made.output, made.error) == (None,) * 5

    @pytest.mark.parametrize("priority", [0, 9, 255, None])
    def test_a_priority_is_kept_also_when_it_is_zero(self, store: Store, priority: int | None) -> None:
        assert summary_of(store, create(store, priority=priority)).priority == priority

    def test_execution_ids_are_uuids_of_version_7(self, store: Store) -> None:
        ids = [create(store) for _ in range(5)]
        assert {UUID(execution_id).version for execution_id in ids} == {7}
        assert len(set(ids)) == 5

    def test_the_summary_is_the_header_of_the_context(self, store: Store) -> None:
        execution_id, lease = claimed(store, session_id="s", user_id="u", metadata={"a": 1})
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        context, summary = context_of(store, execution_id), summary_of(store, execution_id)
        assert {name: getattr(context, name) for name in summary.__dataclass_fields__} == {
            name: getattr(summary, name) for name in summary.__dataclass_fields__
        }
        assert summary.step_count == 1

    def test_it_becomes_due_after_the_first_ring(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store, first_ring=timedelta(seconds=3))
        clock.advance(timedelta(seconds=3) - INSTANT)
        assert due_ids(store) == []
        clock.advance(INSTANT)
        assert due_ids(store) == [execution_id]

    def test_before_its_start_time_it_is_neither_due_nor_claimable(self, store: Store, clock: ManualClock) -> None:
        start_at = from_us(clock.now_us()) + timedelta(hours=1)
        execution_id = create(store, start_at=start_at)
        assert summary_of(store, execution_id).due_at == start_at
        clock.advance(timedelta(hours=1) - INSTANT)
        assert due_ids(store) == []
        assert store.claim(execution_id, "host:1", TTL) is None
        clock.advance(INSTANT)
        assert due_ids(store) == [execution_id]
        claim(store, execution_id)

    def test_a_used_idempotency_key_with_the_same_input_returns_the_existing_execution(self, store: Store) -> None:
        first = store.create_context("agent", {"a": [1, "é"], "b": None}, idempotency_key="key")
        store.add_message(first.execution_id, "user", "hello")
        again = store.create_context("agent", {"b": None, "a": (1, "é")}, session_id="other", idempotency_key="key")
        assert again == context_of(store, first.execution_id)
        assert [item.execution_id for item in store.find().items] == [first.execution_id]

    def test_a_used_idempotency_key_with_another_input_or_parent_is_refused(self, store: Store) -> None:
        of_input = create(store, input={"n": 1}, idempotency_key="input")
        of_parent = create(store, input=1, idempotency_key="parent", parent_execution_id="one")
        others: list[JSONValue] = [{"n": 2}, {"n": "1"}, {"n": True}, {"n": 1.0}, None]
        cases: list[tuple[str, str, JSONValue, str | None]] = [
            *(("input", of_input, value, None) for value in others),
            ("input", of_input, {"n": 1}, "one"),
            ("parent", of_parent, 1, "two"),
            ("parent", of_parent, 1, None),
        ]
        for key, holder, value, parent in cases:
            with pytest.raises(IdempotencyConflict) as refused:
                create(store, input=value, idempotency_key=key, parent_execution_id=parent)
            assert (refused.value.agent_id, refused.value.idempotency_key) == ("agent", key)
            assert refused.value.execution_id == holder
        store.update_state(of_input, AgentState.COMPLETED)
        with pytest.raises(IdempotencyConflict):
            create(store, input={"n": 2}, idempotency_key="input")
        assert len(store.find().items) == 2
        assert create(store, input={"n": 1}, idempotency_key="input") == of_input
        store.delete_context(of_input)
        assert create(store, input={"n": 2}, idempotency_key="input") != of_input

    def test_a_used_idempotency_key_returns_an_execution_that_is_over(self, store: Store) -> None:
        first = create(store, idempotency_key="key")
        store.update_state(first, AgentState.COMPLETED, output="done")
        assert store.create_context("agent", idempotency_key="key").output == "done"

    def test_an_idempotency_key_belongs_to_its_agent(self, store: Store) -> None:
        assert create(store, "one", idempotency_key="key") != create(store, "two", idempotency_key="key")
        assert create(store, "a:b", idempotency_key="c") != create(store, "a", idempotency_key="b:c")

    def test_an_execution_is_found_by_its_idempotency_key(self, store: Store) -> None:
        execution_id = create(store, "agent", idempotency_key="key")
        create(store, "agent")
        assert store.get_by_idempotency_key("agent", "key") == context_of(store, execution_id)
        store.add_message(execution_id, "user", "hello")
        store.update_state(execution_id, AgentState.COMPLETED, output="done")
        assert store.get_by_idempotency_key("agent", "key") == context_of(store, execution_id)
        for agent_id, key in (("agent", "other"), ("other", "key"), ("key", "agent"), ("agent:key", ""), ("", "")):
            assert store.get_by_idempotency_key(agent_id, key) is None
        assert len(store.find().items) == 2

    def test_executions_without_an_idempotency_key_are_all_new(self, store: Store) -> None:
        assert create(store) != create(store)

    def test_a_caller_may_choose_the_id_and_a_repetition_returns_the_same_execution(self, store: Store) -> None:
        chosen = str(uuid4())
        made = store.create_context("agent", {"a": 1, "b": 2}, execution_id=chosen, session_id="session")
        assert made.execution_id == chosen
        assert store.get_context(chosen) == made
        claim(store, chosen)
        again = store.create_context("agent", {"b": 2, "a": 1}, execution_id=chosen)
        assert again == context_of(store, chosen)
        assert (again.attempt, len(store.find().items)) == (1, 1)

    def test_a_chosen_id_that_belongs_to_another_execution_is_refused(self, store: Store) -> None:
        chosen = create(store, input=1)
        others: list[tuple[str, JSONValue, str | None]] = [("other", 1, None), ("agent", 2, None), ("agent", 1, "p")]
        for agent_id, value, parent in others:
            with pytest.raises(ExecutionIdTaken) as refused:
                create(store, agent_id, input=value, parent_execution_id=parent, execution_id=chosen)
            assert refused.value.execution_id == chosen
        assert len(store.find().items) == 1
        store.delete_context(chosen)
        if store.keeps_deleted:
            with pytest.raises(ExecutionIdTaken):
                create(store, input=1, execution_id=chosen)
            store.purge(chosen)
        assert create(store, input=2, execution_id=chosen) == chosen

    def test_a_chosen_id_is_a_uuid_and_takes_the_place_of_an_idempotency_key(self, store: Store) -> None:
        chosen = uuid4()
        for wrong in ("", "order-7", chosen.hex, str(chosen).upper(), f"{{{chosen}}}", chosen, 7):
            with pytest.raises(InvalidRecord) as refused:
                create(store, execution_id=wrong)
            assert refused.value.field == "execution_id"
        with pytest.raises(InvalidRecord):
            create(store, execution_id=str(chosen), idempotency_key="key")
        assert store.find().items == ()

    @pytest.mark.parametrize("text", ["a b", "a:b{c}", "%_*?[x]", "Ünï'\"\\", "\N{SLIGHTLY SMILING FACE}", "x" * 255])
    def test_names_may_be_any_text(self, store: Store, text: str) -> None:
        made = store.create_context(text, session_id=text, user_id=text, idempotency_key=text, queue=text)
        assert store.create_context(text, idempotency_key=text).execution_id == made.execution_id
        assert (made.agent_id, made.session_id, made.user_id, made.queue) == (text,) * 4
        assert [
            item.execution_id for item in store.find(Query(agent_id=text, session_id=text, user_id=text)).items
        ] == [made.execution_id]

    @pytest.mark.parametrize("execution_id", UNKNOWN_IDS)
    def test_an_unknown_execution_reads_as_nothing(self, store: Store, execution_id: str) -> None:
        create(store)
        assert store.get_context(execution_id) is None
        assert store.get_summary(execution_id) is None
        assert store.get_steps(execution_id) == ()
        assert store.claim(execution_id, "host:1", TTL) is None
        assert store.delete_context(execution_id) is False
        assert store.can_continue(execution_id) is False
        store.settle(execution_id)
        store.mark_rung([(execution_id, 0)], TTL, TTL)
        assert len(store.find().items) == 1

    @pytest.mark.parametrize("execution_id", UNKNOWN_IDS)
    def test_writing_to_an_unknown_execution_raises_execution_not_found(self, store: Store, execution_id: str) -> None:
        lease = replace(claimed(store)[1], execution_id=execution_id)  # as after a deletion
        with pytest.raises(ExecutionNotFound):
            store.checkpoint(execution_id, Checkpoint())
        with pytest.raises(ExecutionNotFound):
            store.checkpoint(execution_id, Checkpoint(messages=(message("x"),)), lease)
        with pytest.raises(ExecutionNotFound):
            store.send(execution_id, answer())
        with pytest.raises(ExecutionNotFound):
            store.send(execution_id, cancel())
        assert store.get_context(execution_id) is None

    def test_the_steps_after_a_number_are_read_alone(self, store: Store) -> None:
        execution_id = create(store)
        steps = tuple(done(number) for number in range(1, 13))
        store.checkpoint(execution_id, Checkpoint(steps=steps))
        assert store.get_steps(execution_id) == steps
        assert store.get_steps(execution_id, after=9) == steps[9:]
        assert store.get_steps(execution_id, after=12) == ()
        assert store.get_steps(execution_id, after=99) == ()

    def test_the_store_answers_a_check(self, store: Store) -> None:
        store.check()
        warning = store.durability_warning()
        assert warning is None or warning

    def test_tidying_leaves_living_executions_alone(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store, session_id="s")
        before = context_of(store, execution_id)
        clock.advance(timedelta(days=30))
        assert store.tidy() == 0
        assert context_of(store, execution_id) == before
        assert [item.execution_id for item in store.find(Query(session_id="s")).items] == [execution_id]

    def test_many_are_created_as_each_would_be_alone(self, store: Store, clock: ManualClock) -> None:
        news = [
            NewExecution(agent_id="agent", input={"n": 0}, metadata={"a": "\x00\N{SNOWMAN}"}, rings=1),
            NewExecution(
                agent_id="agent", input=[1, None, 1.5, "\\"], session_id="s", user_id="u", queue="gpu", priority=3
            ),
            NewExecution(agent_id="other", session_id="s", idempotency_key="key", first_ring=timedelta(seconds=3)),
            NewExecution(agent_id="agent", execution_id=str(uuid4()), parent_execution_id="parent"),
            NewExecution(agent_id="agent", start_at=from_us(clock.now_us()) + timedelta(hours=1)),
        ]
        alone = [store.create(replace(new, execution_id=None, idempotency_key=None)) for new in news]
        many = store.create_many(news)
        assert [replace(made, execution_id="", idempotency_key=None) for made in many] == [
            replace(made, execution_id="") for made in alone
        ]
        assert many[2].idempotency_key == "key"
        assert many[3].execution_id == news[3].execution_id
        assert len({made.execution_id for made in many}) == len(news)
        for made, single in zip(many, alone, strict=True):
            assert store.get_context(made.execution_id) == made
            trails = [store.get_audit(one.execution_id) for one in (made, single)]
            assert trails[0] == trails[1], made
        assert len(store.get_session_contexts("s")) == 4
        clock.advance(timedelta(hours=2))
        assert set(due_ids(store)) == {made.execution_id for made in (*many, *alone)}
        assert store.create_many([]) == ()

    def test_of_many_those_are_found_again_whose_keys_are_taken(self, store: Store) -> None:
        first = store.create_many([NewExecution(agent_id="agent", input=n, idempotency_key=f"k{n}") for n in (1, 2)])
        again = store.create_many(
            [NewExecution(agent_id="agent", input=n, idempotency_key=f"k{n}") for n in (0, 1, 2, 3)]
        )
        assert again[1:3] == first
        assert len({made.execution_id for made in again}) == 4
        twice = [NewExecution(agent_id="agent", input=9, idempotency_key="twice")] * 2
        one, other = store.create_many(twice)
        assert one == other
        assert store.create_many([replace(twice[0], idempotency_key=None, execution_id=one.execution_id)]) == (one,)

    def test_of_many_one_that_is_refused_holds_up_no_other(self, store: Store) -> None:
        taken = store.create(NewExecution(agent_id="agent", input=1, idempotency_key="key"))
        plain = NewExecution(agent_id="agent", session_id="many")
        with pytest.raises(IdempotencyConflict):
            store.create_many([plain, NewExecution(agent_id="agent", input=2, idempotency_key="key"), plain])
        with pytest.raises(ExecutionIdTaken):
            store.create_many([plain, NewExecution(agent_id="agent", input=2, execution_id=taken.execution_id)])
        assert len(store.get_session_contexts("many")) == 3
        assert store.get_context(taken.execution_id) == taken

    def test_of_many_one_that_cannot_be_stored_keeps_all_from_being(self, store: Store) -> None:
        plain = NewExecution(agent_id="agent", session_id="many")
        for value, error in ((object(), NotSerialisable), ("x" * (store.max_value_bytes + 1), ValueTooLarge)):
            with pytest.raises(error):
                store.create_many([plain, replace(plain, input=value), plain])
        assert store.get_session_contexts("many") == ()
