"""The simulation of fleets, held against what is known without it."""

from collections import Counter
from dataclasses import replace

import pytest
import simpy

from agent_statestore.redis.keys import PARTITIONS
from benchmarks.scaling.simulation import Costs, Fleet, Log, node_of, play

COSTS = Costs(
    enqueue_calls=1,
    fixed_calls=2,
    step_calls=1,
    call=50e-6,
    producer=0.5e-3,
    parent=0.5e-3,
    child=0.5e-3,
    child_step=0.1e-3,
    broker=50e-6,
    flush=0.0,
)
FLEET = Fleet(workers=100, servers=1, cores=1, steps=1, by_partition=True)


def test_a_full_server_is_the_limit_and_named_as_the_busiest() -> None:
    played = play(COSTS, FLEET, executions=4000)
    assert played.per_second == pytest.approx(1 / (4 * COSTS.call), rel=0.05), "four calls for each execution"
    assert max(played.busy, key=lambda name: played.busy[name]) == "store's CPU"


def test_below_the_limit_twice_the_workers_do_twice_as_much() -> None:
    one, two = (play(COSTS, replace(FLEET, workers=workers), executions=2000).per_second for workers in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.1)


def test_the_same_seed_plays_the_same() -> None:
    assert play(COSTS, FLEET, executions=500) == play(COSTS, FLEET, executions=500)


def test_a_second_node_doubles_the_limit_of_the_store() -> None:
    played = play(replace(COSTS, broker=0.0), replace(FLEET, servers=2), executions=4000)
    assert played.per_second == pytest.approx(2 / (4 * COSTS.call), rel=0.1)


def test_a_full_broker_is_relieved_by_a_second_one() -> None:
    costs = replace(COSTS, call=0.0, broker=200e-6)
    one, two = (play(costs, replace(FLEET, servers=2, brokers=brokers), executions=4000) for brokers in (1, 2))
    assert one.per_second == pytest.approx(1 / costs.broker, rel=0.1)
    assert two.per_second == pytest.approx(2 * one.per_second, rel=0.1)


def test_partitions_lie_on_the_nodes_as_redis_places_them() -> None:
    assert Counter(node_of(partition, 2) for partition in range(PARTITIONS)) == {0: 8, 1: 8}
    # Equal ranges of slots give only four of eight nodes anything to do: docs/scaling.md says what to do about it.
    assert len({node_of(partition, 8) for partition in range(PARTITIONS)}) == 4


def test_commits_that_wait_together_share_a_flush() -> None:
    environment = simpy.Environment()
    log = Log(environment, 1.0)
    ended: dict[float, float] = {}

    def commit(at: float) -> "simpy.events.ProcessGenerator":
        yield environment.timeout(at)
        yield log.flush()
        ended[at] = environment.now

    for at in (0.0, 0.2, 0.9, 1.5, 9.0):
        environment.process(commit(at))
    environment.run()
    assert ended == {0.0: 1.0, 0.2: 2.0, 0.9: 2.0, 1.5: 3.0, 9.0: 10.0}
