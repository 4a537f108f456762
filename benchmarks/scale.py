"""Whether a store with many executions is slower at work that concerns few of them."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from agent_statestore import AgentState, MemoryStore, Store, open_store
from agent_statestore.hybrid import HybridStore
from agent_statestore.moving.retention import purge_ended
from agent_statestore.query import Query
from agent_statestore.states import ACTIVE
from benchmarks.executing import LEASE, OWNER
from benchmarks.measuring import Rounds, Turn, take_turns
from benchmarks.population import ids_of, populated, put
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from tests.services import mariadb
from tests.services.postgresql import driver_url

PAGE: Final = 20
WINDOW: Final = 50  # executions
_LEASES: Final = 10
_DUE: Final = 10
_AT_ONCE: Final = timedelta(microseconds=1)

Look = Callable[[], object]


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure each operation in a store of the full size and in a store of a tenth of it."""
    full = populated(sizes.scale_finished, sizes.scale_active)
    tenth = populated(sizes.scale_finished // 10, sizes.scale_active // 10)
    measured: dict[str, Rounds] = {}
    for name in servers.store_names():
        if name != "SQLite FULL":
            measured[name] = _measure_store(servers, sizes, name, full, tenth)
    archived = _measure_archiving(servers, sizes, full, tenth)
    operations = list(dict.fromkeys(turn.rpartition(" ")[0] for rounds in measured.values() for turn in rounds.medians))
    executions = f"{sizes.scale_finished:,} finished and {sizes.scale_active:,} active executions"
    return [
        Table(
            name="scale, ms",
            title=f"With {executions}, ms",
            note=(
                f"Pages of {PAGE}; deep: the last full page. take_due: {_DUE}. stats: of {WINDOW} executions. "
                f"Retention: {sizes.scale_batch} executions are purged."
            ),
            rows=_rows(operations, measured, "{}", lambda rounds, name: rounds.median(f"{name} full") * 1e3),
        ),
        Table(
            name="scale",
            title=f"{executions}, in times of the cost with a tenth of them",
            note="1: costs what it concerns. 10: looks at everything, as the store in memory does.",
            rows=_rows(
                operations, measured, "{} / tenth", lambda rounds, name: rounds.ratio(f"{name} full", f"{name} tenth")
            ),
        ),
        Table(
            name="archiving",
            title="Archiving, Redis to PostgreSQL",
            note=f"{sizes.scale_batch} at once, of {executions} in Redis; and of a tenth of them.",
            rows=[
                {
                    "store": "hybrid",
                    "ms": archived.median("archive full") * 1e3,
                    "executions, /s": sizes.scale_batch / archived.median("archive full"),
                    "/ tenth": archived.ratio("archive full", "archive tenth"),
                }
            ],
        ),
    ]


def _rows(
    operations: list[str], measured: Mapping[str, Rounds], heading: str, figure: Callable[[Rounds, str], float]
) -> list[dict[str, Value]]:
    return [
        {"operation": operation}
        | {heading.format(store): figure(rounds, operation) for store, rounds in measured.items()}
        for operation in operations
    ]


def _measure_store(servers: Servers, sizes: Sizes, name: str, full: MemoryStore, tenth: MemoryStore) -> Rounds:
    with ExitStack() as stack:
        looks: dict[str, dict[str, Look]] = {}
        retentions: dict[str, Look] = {}
        for size, source in (("full", full), ("tenth", tenth)):
            url = servers.store_url(name)
            store = stack.enter_context(open_store(url))
            ids = ids_of(source)
            put(source, store, ids)
            _update_statistics(url)
            looks[size] = _looks(store, ids)
            retentions[size] = _retention(store, sizes.scale_batch)
        common = [look for look in looks["full"] if look in looks["tenth"]]
        measured = take_turns(
            {
                f"{look} {size}": _repeated(looks[size][look], sizes.scale_calls)
                for look in common
                for size in ("full", "tenth")
            },
            sizes.scale_rounds,
        )
        # Last, because it takes away what the others look at.
        purged = take_turns(
            {f"retention {size}": _repeated(retention, 1) for size, retention in retentions.items()}, sizes.scale_rounds
        )
        return Rounds(measured.medians | purged.medians)


def _measure_archiving(servers: Servers, sizes: Sizes, full: MemoryStore, tenth: MemoryStore) -> Rounds:
    with ExitStack() as stack:
        turns: dict[str, Turn] = {}
        for size, source in (("full", full), ("tenth", tenth)):
            store = stack.enter_context(open_store(servers.hybrid_url()))
            assert isinstance(store, HybridStore)
            put(source, store.hot, ids_of(source))
            turns[f"archive {size}"] = _repeated(_archive(store, sizes.scale_batch), 1)
        return take_turns(turns, sizes.scale_rounds)


def _repeated(look: Look, calls: int) -> Turn:
    def turn() -> list[float]:
        times = []
        for _ in range(calls):
            started = time.perf_counter()
            look()
            times.append(time.perf_counter() - started)
        return times

    return turn


def _looks(store: Store, ids: list[str]) -> dict[str, Look]:
    """Return the looks to measure, which change nothing. Each is for what stands in the middle of the span of time."""
    middle = len(ids) // 2
    window = min(WINDOW, len(ids) // 4)
    summary, since, until = (store.get_summary(ids[at]) for at in (middle, middle - window, middle))
    assert summary is not None
    assert since is not None
    assert until is not None
    looks: dict[str, Look] = {}
    filters: dict[str, dict[str, Any]] = {
        "find": {},
        "find session": {"session_id": summary.session_id},
        "find user": {"user_id": summary.user_id},
        "find agent": {"agent_id": summary.agent_id},
        "find failed": {"states": (AgentState.FAILED,)},
        "find active": {"states": ACTIVE},
        "find agent, failed": {"agent_id": "agent 0", "states": (AgentState.FAILED,)},
        "find agent, failed: none": {"agent_id": "agent 1", "states": (AgentState.FAILED,)},
        "find user, completed": {"user_id": summary.user_id, "states": (AgentState.COMPLETED,)},
        "find window": {"created_after": since.created_at, "created_before": until.created_at},
    }
    for name, wanted in filters.items():
        looks[name] = _page(store, wanted, None)
        matches = len(ids_of(store, **wanted))
        if matches > PAGE:
            before_last = store.find(Query(**wanted, limit=matches - PAGE)).next_cursor
            looks[f"{name}, deep"] = _page(store, wanted, before_last)
    for due in store.take_due(_LEASES, _AT_ONCE):
        store.claim(due.execution_id, OWNER, LEASE)
    return looks | {
        "find_leases": lambda: store.find_leases(OWNER),
        "take_due": lambda: store.take_due(_DUE, _AT_ONCE),
        "find_ended": lambda: store.find_ended(datetime.now(UTC), limit=PAGE),
        "stats": lambda: store.stats(since=since.created_at, until=until.created_at),
    }


def _page(store: Store, wanted: dict[str, Any], cursor: str | None) -> Look:
    return lambda: store.find(Query(**wanted, limit=PAGE, cursor=cursor))


def _retention(store: Store, batch: int) -> Look:
    def retention() -> None:
        purged, passed_over = purge_ended(store, datetime.now(UTC), states=[AgentState.COMPLETED], limit=batch)
        if purged != batch or passed_over:
            raise RuntimeError(f"{purged} executions were purged and {passed_over} passed over, not {batch} and 0")

    return retention


def _archive(store: HybridStore, batch: int) -> Look:
    def archive() -> None:
        done = store.archive(limit=batch)
        if done.archived != batch:
            raise RuntimeError(f"{done}, not {batch}")

    return archive


def _update_statistics(url: str) -> None:
    """Do what the server does by itself some minutes after many writes: it makes its plans by these statistics."""
    server, _, prefix = url.partition("?table_prefix=")
    if url.startswith("postgresql"):
        with psycopg.connect(driver_url(server), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
    elif url.startswith("mysql"):
        with mariadb.connect(server) as mariadb_connection, mariadb_connection.cursor() as cursor:
            cursor.execute("SHOW TABLES")
            for (table,) in cursor.fetchall():
                if table.startswith(prefix):
                    cursor.execute(f"ANALYZE TABLE {table}")
