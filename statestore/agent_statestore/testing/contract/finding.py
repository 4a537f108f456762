"""Filters and pages."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import InvalidRecord
from agent_statestore.query import Query
from agent_statestore.states import ACTIVE, OVER, AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import INSTANT, claim, context_of, create, move, summary_of
from agent_statestore.testing.kit.suite import Suite


def ids(store: Store, **filters: Any) -> list[str]:
    return [item.execution_id for item in store.find(Query(**filters)).items]


def pages(store: Store, limit: int, **filters: Any) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = store.find(Query(limit=limit, cursor=cursor, **filters))
        found.append([item.execution_id for item in page.items])
        cursor = page.next_cursor
        if cursor is None:
            return found


class FindingConformance(Suite):
    """`find` and `get_session_contexts`."""

    def test_the_newest_comes_first(self, store: Store, clock: ManualClock) -> None:
        made = []
        for _ in range(4):
            made.append(create(store))
            clock.advance(INSTANT)
        assert ids(store) == made[::-1]

    def test_of_one_moment_the_greater_id_comes_first(self, store: Store) -> None:
        made = [create(store) for _ in range(6)]
        assert ids(store) == sorted(made, reverse=True)

    def test_the_opposite_order_turns_every_page_round(self, store: Store, clock: ManualClock) -> None:
        for number in range(30):
            execution_id = create(store, "ab"[number % 2], session_id="st"[number % 3 == 0])
            if number % 4:
                store.update_state(execution_id, AgentState.COMPLETED if number % 5 else AgentState.FAILED)
            if number % 3:
                clock.advance(INSTANT)
        moments = sorted(item.created_at for item in store.find().items)
        for filters in (
            {},
            {"agent_id": "a"},
            {"agent_id": "b", "states": [AgentState.COMPLETED]},
            {"agent_id": "b", "states": [AgentState.IDLE]},
            {"session_id": "s", "states": AgentState},
            {"states": OVER},
            {"created_after": moments[5], "created_before": moments[20]},
            {"agent_id": "a", "states": OVER, "created_after": moments[5], "created_before": moments[20]},
        ):
            whole = ids(store, **filters)[::-1]
            assert ids(store, oldest_first=True, **filters) == whole
            for limit in (1, 3, 7):
                found = pages(store, limit, oldest_first=True, **filters)
                assert [execution_id for page in found for execution_id in page] == whole
                assert {len(page) for page in found[:-1]} <= {limit}

    def test_it_returns_the_summaries(self, store: Store) -> None:
        execution_id = create(store, session_id="s", metadata={"a": [1]})
        claim(store, execution_id)
        assert store.find().items == (summary_of(store, execution_id),)

    def test_an_empty_store_has_one_empty_page(self, store: Store) -> None:
        page = store.find()
        assert (page.items, page.next_cursor) == ((), None)

    def test_every_combination_of_filters_matches_exactly_what_fits_all_of_them(
        self, store: Store, clock: ManualClock
    ) -> None:
        made: dict[str, dict[str, Any]] = {}
        for session, user, agent, over in itertools.product("ab", "ab", "ab", (False, True)):
            execution_id = create(store, agent, session_id=session, user_id=user)
            if over:
                store.update_state(execution_id, AgentState.COMPLETED)
            made[execution_id] = {
                "session_id": session,
                "user_id": user,
                "agent_id": agent,
                "states": [AgentState.COMPLETED if over else AgentState.IDLE],
                "at": from_us(clock.now_us()),
            }
            clock.advance(INSTANT)
        moments = sorted(fields["at"] for fields in made.values())
        wanted: dict[str, Any] = {
            "session_id": "a",
            "user_id": "b",
            "agent_id": "a",
            "states": [AgentState.COMPLETED],
            "created_after": moments[2],
            "created_before": moments[12],
        }
        for size in range(len(wanted) + 1):
            for names in itertools.combinations(wanted, size):
                filters = {name: wanted[name] for name in names}
                fitting = [
                    execution_id
                    for execution_id, fields in made.items()
                    if all(fields[name] == wanted[name] for name in names if not name.startswith("created"))
                    and ("created_after" not in names or fields["at"] >= wanted["created_after"])
                    and ("created_before" not in names or fields["at"] < wanted["created_before"])
                ]
                assert ids(store, **filters) == fitting[::-1], names

    def test_every_state_is_found_by_its_name_and_by_no_other(self, store: Store) -> None:
        made = {}
        for state in AgentState:
            made[state] = create(store)
            move(store, made[state], state)
        for state in AgentState:
            assert ids(store, states=[state]) == [made[state]]

    def test_states_match_any_of_them(self, store: Store) -> None:
        for state in AgentState:
            move(store, create(store), state)
        assert {item.state for item in store.find(Query(states=ACTIVE)).items} == ACTIVE
        assert {item.state for item in store.find(Query(states=iter(OVER))).items} == OVER
        assert len(ids(store, states=AgentState)) == len(AgentState)

    def test_no_states_match_nothing(self, store: Store) -> None:
        create(store)
        assert ids(store, states=[]) == []

    def test_an_execution_is_found_in_its_present_state_only(self, store: Store) -> None:
        execution_id = create(store)
        claim(store, execution_id)
        assert ids(store, states=[AgentState.IDLE]) == []
        assert ids(store, states=[AgentState.THINKING]) == [execution_id]

    def test_created_after_is_inclusive_and_created_before_exclusive(self, store: Store, clock: ManualClock) -> None:
        execution_id, at = create(store), from_us(clock.now_us())
        assert ids(store, created_after=at) == [execution_id]
        assert ids(store, created_after=at + INSTANT) == []
        assert ids(store, created_before=at) == []
        assert ids(store, created_before=at + INSTANT) == [execution_id]

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
    def test_the_pages_together_hold_everything_once_and_in_order(
        self, store: Store, clock: ManualClock, limit: int
    ) -> None:
        made = []
        for number in range(7):
            made.append(create(store))
            clock.advance(INSTANT if number % 3 else timedelta(0))
        read = pages(store, limit)
        assert list(itertools.chain(*read)) == ids(store) == sorted(made, reverse=True)
        assert [len(page) for page in read[:-1]] == [limit] * (len(read) - 1)
        assert read[-1] != []

    def test_pages_obey_the_filters(self, store: Store) -> None:
        for number in range(12):
            create(store, session_id=str(number % 3), agent_id=str(number % 2))
        read = list(itertools.chain(*pages(store, 1, session_id="1", agent_id="0")))
        assert sorted(read) == sorted(ids(store, session_id="1", agent_id="0"))
        assert len(read) == 2

    def test_executions_added_between_the_pages_neither_repeat_nor_hide_any(
        self, store: Store, clock: ManualClock
    ) -> None:
        for _ in range(6):
            create(store)
            clock.advance(INSTANT)
        existing, read, cursor = ids(store), [], None
        while True:
            page = store.find(Query(limit=2, cursor=cursor))
            read += [item.execution_id for item in page.items]
            create(store)
            clock.advance(INSTANT)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert read == existing

    def test_executions_removed_between_the_pages_hide_no_other(self, store: Store) -> None:
        made = sorted((create(store) for _ in range(6)), reverse=True)
        page = store.find(Query(limit=2))
        store.delete_context(made[1])
        store.delete_context(made[2])
        assert ids(store, cursor=page.next_cursor) == made[3:]

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused(self, store: Store, limit: int) -> None:
        with pytest.raises(InvalidRecord, match="limit"):
            store.find(Query(limit=limit))

    @pytest.mark.parametrize("cursor", ["", "nonsense", "bnVsbA", "W10", "eyJhIjoxfQ", "ß", "a" * 1000])
    def test_a_cursor_that_the_store_did_not_make_is_refused(self, store: Store, cursor: str) -> None:
        create(store)
        with pytest.raises(InvalidRecord, match="cursor"):
            store.find(Query(cursor=cursor))

    def test_the_contexts_of_a_session_come_newest_first_and_whole(self, store: Store, clock: ManualClock) -> None:
        made = []
        for number in range(3):
            made.append(create(store, session_id="s"))
            store.add_message(made[-1], "user", number)
            clock.advance(INSTANT)
        create(store, session_id="other")
        expected = tuple(context_of(store, execution_id) for execution_id in made[::-1])
        assert store.get_session_contexts("s") == expected
        assert store.get_session_contexts("s", limit=2) == expected[:2]
        assert store.get_session_contexts("none") == ()
