"""The tables of the section `scaling`."""

from dataclasses import replace
from typing import Final

from benchmarks.report import Table, Value
from benchmarks.scaling.calibration import calibrate, calls_at_rest, flush_seconds, store_servers
from benchmarks.scaling.paused import STEP_BYTES, STEPS, Paused, pause
from benchmarks.scaling.simulation import SLOTS, Costs, Fleet, play
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes

_POSTGRESQL_CORES: Final = 8
_EXECUTIONS_A_SLOT: Final = 10
_LEAST_EXECUTIONS: Final = 1000
_FLUSHES: Final = 200
_FULL: Final = 0.9
_FLEET: Final = 1000
_MILLION: Final = 1_000_000

# Rows of the table of fleets: kind of store, number of its servers, number of brokers.
_LAYOUTS: Final = (
    ("Redis", 1, 1),
    ("Redis", 2, 1),
    ("Redis", 4, 1),
    ("Redis", 4, 4),
    ("Redis", 8, 8),
    ("PostgreSQL", 1, 1),
    ("PostgreSQL", 4, 4),
    ("PostgreSQL", 16, 16),
)


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure costs, and play fleets with them."""
    few, many = sizes.resting_workers
    with store_servers(servers) as stores:
        resting = {
            name: [calls_at_rest(servers, url, server, workers, sizes.resting_seconds) for workers in (few, many)]
            for name, (url, server) in stores.items()
        }
        costs = {
            name: calibrate(servers, url, server, sizes.long_executions, sizes.scaling_rounds, resting[name][0] / few)
            for name, (url, server) in stores.items()
        }
        costs["PostgreSQL"] = replace(costs["PostgreSQL"], flush=flush_seconds(servers.folder, _FLUSHES))
        paused = {name: pause(url, server, sizes.paused) for name, (url, server) in stores.items()}
    return [
        _costs(costs, sizes),
        _fleets(costs, sizes),
        _rest(resting, few, many),
        _paused(paused, sizes),
    ]


def _costs(costs: dict[str, Costs], sizes: Sizes) -> Table:
    return Table(
        name="calibration",
        title="Measured: what an execution costs, in us of CPU unless said otherwise",
        note=(
            f"One worker (prefork {SLOTS}, results and events off), medians of {sizes.scaling_rounds} rounds of "
            f"{sizes.long_executions} executions. Server: of the store, for each call. Broker: of its Redis, for each "
            "message. Flush: a page of PostgreSQL's log on this disk, waited for."
        ),
        rows=[
            {
                "store": name,
                "calls: enqueue": each.enqueue_calls,
                "claim to end": each.fixed_calls,
                "a step": each.step_calls,
                "server": each.call * 1e6,
                "broker": each.broker * 1e6,
                "producer": each.producer * 1e6,
                "parent": each.parent * 1e6,
                "child": each.child * 1e6,
                "child, a step": each.child_step * 1e6,
                "flush": each.flush * 1e6,
            }
            for name, each in costs.items()
        ],
    )


def _fleets(costs: dict[str, Costs], sizes: Sizes) -> Table:
    rows: list[dict[str, Value]] = []
    for store, servers, brokers in _LAYOUTS:
        row: dict[str, Value] = {"store, servers, brokers": f"{store}, {servers}, {brokers}"}
        for workers in sizes.fleets:
            is_redis = store == "Redis"
            fleet = Fleet(
                workers=workers,
                servers=servers,
                brokers=brokers,
                cores=1 if is_redis else _POSTGRESQL_CORES,
                steps=1,
                by_partition=is_redis,
            )
            executions = max(_LEAST_EXECUTIONS, workers * SLOTS * _EXECUTIONS_A_SLOT)
            played = play(costs[store], fleet, executions=executions)
            said = "1 worker, /s" if workers == 1 else f"{workers:,} workers, /s"
            row |= {said: played.per_second, f"busiest at {workers:,}": _busiest(played.busy)}
        rows.append(row)
    return Table(
        name="fleets",
        title="Simulated: executions of one step per second",
        note=(
            f"Workers with {SLOTS} slots and as many producers as they can serve, each process with a core to itself; "
            "steps that take no time; each broker a Redis of its own; 0.3 ms a round trip; for each PostgreSQL "
            f"{_POSTGRESQL_CORES} cores and a disk. Redis servers: nodes of a Cluster with equal ranges of hash slots. "
            "PostgreSQL servers: one app each, executions spread by a hash. Busiest: how much of the time it works. "
            f"Below {_FULL:.0%} nothing is full: executions wait for answers and disks, and more workers help."
        ),
        rows=rows,
    )


def _busiest(busy: dict[str, float]) -> str:
    name = max(busy, key=lambda each: busy[each])
    return f"{name}, {busy[name]:.0%}{'' if busy[name] < _FULL else ': full'}"


def _rest(resting: dict[str, list[float]], few: int, many: int) -> Table:
    rows: list[dict[str, Value]] = []
    for name, (of_few, of_many) in resting.items():
        each = (of_many - of_few) / (many - few)
        rows.append(
            {
                "store": name,
                f"{few} workers: calls/s" if few > 1 else "1 worker: calls/s": of_few,
                f"{many} workers: calls/s": of_many,
                "each further": each,
                f"{_FLEET:,} workers: calls/s": of_few + each * (_FLEET - few),
            }
        )
    return Table(
        name="fleet at rest",
        title="What workers at rest ask of the store",
        note=f"Measured, the last column extrapolated along a line from {few} and {many} workers on one host.",
        rows=rows,
    )


def _paused(paused: dict[str, Paused], sizes: Sizes) -> Table:
    return Table(
        name="paused executions",
        title=f"Executions that wait for a person after {STEPS} steps of {STEP_BYTES} bytes",
        note=(
            f"Measured with {sizes.paused:,}, indexes and audit trail included; a million: extrapolated along a line. "
            "Look: what a sweep asks, without them and with them. They make no other calls."
        ),
        rows=[
            {
                "store": name,
                "bytes each": each.bytes_each,
                "a million, GB": each.bytes_each * _MILLION / 1e9,
                "look before, ms": each.look_before * 1e3,
                "look with, ms": each.look_with * 1e3,
            }
            for name, each in paused.items()
        ],
    )
