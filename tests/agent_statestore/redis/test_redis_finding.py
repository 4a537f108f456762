"""`find` on Redis with several filters: entries of one index that are in others, found by the server."""

import itertools
from collections.abc import Iterator
from datetime import timedelta

import pytest

from agent_statestore import AgentState
from agent_statestore.opening import open_store
from agent_statestore.query import Query
from agent_statestore.redis import RedisStore, finding
from agent_statestore.redis.servers.connection import Connection

COUNT = 240
AGENTS = ("busy", "quiet")
STATES = (AgentState.COMPLETED, AgentState.FAILED, AgentState.CANCELLED, AgentState.IDLE)


@pytest.fixture(scope="module")
def store(redis_url: str) -> Iterator[RedisStore]:
    """Executions of two agents, of which the quiet one has none that failed."""
    with open_store(f"{redis_url}?key_prefix=test:finding:") as store:
        assert isinstance(store, RedisStore)
        store.clear()
        for number in range(COUNT):
            agent, state = AGENTS[number % 2], STATES[number % 4]
            execution_id = store.create_context(agent, user_id=f"u{number % 3}", session_id="s").execution_id
            if state is not AgentState.IDLE:
                store.update_state(execution_id, state)
        yield store
        store.clear()


@pytest.fixture(params=[2000, 1, 7])
def looked_through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many entries one call of the script looks through."""
    monkeypatch.setattr(finding, "_LOOKED_THROUGH", request.param)
    most: int = request.param
    return most


@pytest.mark.parametrize("limit", [3, 50])
def test_all_filters_together_find_what_each_allows(store: RedisStore, looked_through: int, limit: int) -> None:
    every = store.find(Query(limit=1000)).items
    assert len(every) == COUNT
    for agent, user, states in itertools.product(
        (None, *AGENTS), (None, "u1"), (None, {AgentState.FAILED}, {AgentState.FAILED, AgentState.IDLE})
    ):
        found, cursor = [], None
        while True:
            page = store.find(
                Query(agent_id=agent, user_id=user, session_id="s", states=states, limit=limit, cursor=cursor)
            )
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == [
            each
            for each in every
            if agent in (None, each.agent_id)
            and user in (None, each.user_id)
            and (states is None or each.state in states)
        ], (agent, user, states, looked_through)


def test_what_other_filters_refuse_does_not_leave_the_server(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    run_each = Connection.run_each

    def counting(self: Connection, script: object, given: list[object], **more: object) -> object:
        calls.extend([script.name] * len(given))  # type: ignore[attr-defined]
        return run_each(self, script, given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "run_each", counting)
    assert store.find(Query(agent_id="quiet", states=[AgentState.COMPLETED], limit=10)).items == ()
    assert "get_summary" not in calls
    assert store.find(Query(agent_id="quiet", states=[AgentState.FAILED], limit=10)).items
    assert calls.count("get_summary") <= 11


def test_executions_that_change_their_state_between_two_looks_are_met(
    redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both states are asked for, so that nothing of it should show."""
    monkeypatch.setattr(finding, "_LOOKED_THROUGH", 1)
    with open_store(f"{redis_url}?key_prefix={redis_prefix}") as store:
        ids = [store.create_context("a").execution_id for _ in range(150)]
        left = iter(ids)
        run_each = Connection.run_each

        def claiming(self: Connection, script: object, given: list[object], **more: object) -> object:
            answers = run_each(self, script, given, **more)  # type: ignore[arg-type]
            if script.name == "find_filtered":  # type: ignore[attr-defined]
                for execution_id in itertools.islice(left, 15):
                    assert store.claim(execution_id, "host:1", timedelta(minutes=1)) is not None
            return answers

        monkeypatch.setattr(Connection, "run_each", claiming)
        met: list[str] = []
        cursor = None
        while True:
            page = store.find(
                Query(agent_id="a", states={AgentState.IDLE, AgentState.THINKING}, limit=20, cursor=cursor)
            )
            met += [item.execution_id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert met == ids[::-1]
        store.clear()


def test_a_name_that_no_text_can_carry_is_not_found(store: RedisStore) -> None:
    for name in ("session_id", "user_id", "agent_id"):
        assert store.find(Query(**{name: "\udcff"})).items == ()  # type: ignore[arg-type]
