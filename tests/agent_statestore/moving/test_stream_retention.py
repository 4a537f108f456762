"""Streams go some time after the end of their executions, each looked at once, and nothing else goes with them."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from agent_statestore import AgentState, Checkpoint, ManualClock, Store
from agent_statestore.moving.stream_retention import trim_ended
from agent_statestore.testing.contract.streams import append, values_of
from agent_statestore.testing.kit.builders import claimed, context_of
from tests.agent_statestore.hybrid.hybrid_life import hybrid_of

DAY = timedelta(days=1)


@pytest.fixture
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Store]:
    with hybrid_of("memory", request, clock) as opened:
        yield opened


def ended(store: Store, *, announced: bool = True) -> str:
    execution_id, lease = claimed(store)
    append(store, lease, 1, "a", "b")
    within = None if announced else timedelta(days=30)
    store.checkpoint(execution_id, Checkpoint(state=AgentState.COMPLETED, output=1, announce_within=within), lease)
    return execution_id


def test_the_streams_of_what_was_over_for_long_enough_go(store: Store, clock: ManualClock) -> None:
    old = [ended(store) for _ in range(5)]
    clock.advance(DAY)
    young, (active, lease) = ended(store), claimed(store, agent_id="other")
    append(store, lease, 1, "x")
    clock.advance(timedelta(hours=1))
    assert trim_ended(store, DAY, limit=2, clock=clock) == (4, True)
    rounds = []
    while True:
        removed, is_more = trim_ended(store, DAY, limit=2, clock=clock)
        rounds.append(removed)
        if not is_more:
            break
    assert sum(rounds) == 6
    assert [values_of(store, each) for each in (*old, young, active)] == [[]] * 5 + [["a", "b"], ["x"]]
    assert context_of(store, old[0]).output == 1
    assert trim_ended(store, DAY, clock=clock) == (0, False)
    clock.advance(DAY)
    assert trim_ended(store, DAY, clock=clock) == (2, False)
    assert values_of(store, active) == ["x"]


def test_many_that_ended_at_once_do_not_stop_it(store: Store, clock: ManualClock) -> None:
    for _ in range(7):  # at the same microsecond, as the clock stands still
        ended(store)
    clock.advance(timedelta(seconds=1))
    ended(store)
    clock.advance(2 * DAY)
    for _ in range(20):
        _, is_more = trim_ended(store, DAY, limit=3, clock=clock)
        if not is_more:
            return
    raise AssertionError("it never comes to an end")


def test_a_period_that_reaches_back_to_nothing_removes_nothing(store: Store, clock: ManualClock) -> None:
    kept = ended(store)
    assert trim_ended(store, timedelta(days=365 * 10), clock=clock) == (0, False)
    assert values_of(store, kept) == ["a", "b"]
