"""What the store's statements look at is bounded by what they return, however many executions there are.

The statements are taken down as the store sends them, and explained before they run.
"""

import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, text

from agent_statestore import AgentState, Checkpoint, Page
from agent_statestore.clock import from_us
from agent_statestore.codec import HEADER_FIELDS, encode_step
from agent_statestore.contract.streams import PollingListener
from agent_statestore.documents import DocumentPlace, DocumentQuery, Put
from agent_statestore.documents.places import place_text
from agent_statestore.envelope import FORMAT
from agent_statestore.query import Query
from agent_statestore.sql import SQLStore
from agent_statestore.sql.tables import metadata_of
from agent_statestore.states import ACTIVE, OVER, PAUSED, WORKING
from agent_statestore.streams.records import StreamAppend
from agent_statestore.testing.contract.streams import part_of, values_of
from agent_statestore.testing.kit.builders import TTL, claim, done, event
from agent_statestore.testing.kit.matrix import cells
from tests.conftest import fresh_database
from tests.services.mariadb import connect as connect_to_mariadb
from tests.services.mariadb import fresh_mariadb_database
from tests.services.postgresql import driver_url

pytestmark = pytest.mark.xdist_group("plans")  # each database is filled once

COUNT = 5000
LIMIT = 20
CREATED_US = 1_750_000_000_000_000
# Of so many in a row, each has this state.
STATES = [
    *[AgentState.COMPLETED] * 60,
    *[AgentState.CANCELLED] * 10,
    *[AgentState.FAILED] * 5,
    *[AgentState.IDLE] * 5,
    *[AgentState.THINKING] * 6,
    *[AgentState.USING_TOOL] * 4,
    *[AgentState.WAITING] * 5,
    *[AgentState.WAITING_FOR_INPUT] * 4,
    AgentState.WAITING_FOR_APPROVAL,
]


# -- the executions ----------------------------------------------------------------------------------------------------


def id_of(number: int) -> str:
    return f"execution-{number:06}"


def state_of(number: int) -> AgentState:
    return STATES[zlib.crc32(id_of(number).encode()) % len(STATES)]


def agent_of(number: int) -> str:
    return f"agent-{zlib.crc32(id_of(-number).encode()) % 60}"


def is_deleted(number: int) -> bool:
    """One in ten, and all that there is of one in ten sessions."""
    return number % 10 == 3


def some(state: AgentState | None = None, *, deleted: bool = False, after: int = COUNT // 2) -> int:
    """The number of an execution in this state."""
    return next(
        number
        for number in range(after, COUNT)
        if is_deleted(number) is deleted and (state is None or state_of(number) is state)
    )


def document_of(number: int) -> DocumentPlace:
    """One of ten in a namespace, of which there are twenty in each of 25 roots."""
    return DocumentPlace(("a", str(number % 25), str(number % 500)), id_of(number))


def row_of(number: int, empty: object) -> dict[str, Any]:
    state, deleted = state_of(number), is_deleted(number)
    created_us = CREATED_US + number * 1000
    leased = state in WORKING and not deleted
    due = not deleted and (state not in OVER or number % 50 == 0) and state not in PAUSED
    nothing: dict[str, Any] = dict.fromkeys(HEADER_FIELDS)
    zeros = ("token", "crashes", "rings", "cancel_requested", "lease_until_us", "not_before_us", "note_count")
    return (
        nothing
        | dict.fromkeys(zeros, 0)
        | {
            "execution_id": id_of(number),
            "format": FORMAT,
            "agent_id": agent_of(number),
            "session_id": f"session-{number % 600}",
            "user_id": f"user-{number % 50}",
            "idempotency_key": None if deleted else f"key-{number}",
            "metadata": "{}",
            "input": "null",
            "state": state.value,
            "version": 2,
            "step_count": 2,
            "token": 1 if leased else 0,
            "owner": f"host-{number % 40}/{number}" if leased else None,
            "lease_until_us": CREATED_US * 2 if leased else 0,
            "due_us": created_us + 1000 if due else None,
            "created_us": created_us,
            "updated_us": created_us,
            "ended_us": created_us + 500 if state in OVER else None,
            "intents": empty,
            "pending": empty,
            "signal_count": 0,
            "audit_count": 2,
            "stream_last": CREATED_US + 2,
            "deleted_us": created_us + 900 if deleted else None,
        }
    )


def fill(store: SQLStore) -> None:
    """Puts the executions into the store's tables."""
    engine = create_engine(store._settings.url)
    tables = metadata_of().tables
    dialect = store._settings.dialect
    places = [(id_of(number), place) for number in range(COUNT) for place in (1, 2)]
    step_texts = {number: encode_step(done(number), 10_000).text for number in (1, 2)}
    rows: dict[str, list[dict[str, Any]]] = {
        "contexts": [row_of(number, {} if dialect == "postgresql" else "{}") for number in range(COUNT)],
        "steps": [
            {"execution_id": owner, "step_number": place, "name": "s", "is_done": True, "data": step_texts[place]}
            for owner, place in places
        ],
        "audit": [
            {"execution_id": owner, "position": place, "at_us": CREATED_US, "event": "created", "attempt": 0}
            for owner, place in places
        ],
        "events": [
            {"execution_id": owner, "number": CREATED_US + place, "data": '{"v":1,"kind":"emitted"}'}
            for owner, place in places
        ],
        "documents": [
            {
                "place": place_text(document_of(number)),
                "version": 1,
                "format": FORMAT,
                "metadata": f'\n"n":{number % 10}\n',
                "created_us": CREATED_US,
                "updated_us": CREATED_US,
                "expires_us": CREATED_US + number if number % 100 == 7 else None,
                "text": "null",
            }
            for number in range(COUNT)
        ],
        "sessions": [
            {"session_id": f"session-{number}", "created_us": CREATED_US, "updated_us": CREATED_US}
            for number in range(600)
        ],
    }
    with engine.begin() as connection:
        for name, values in rows.items():
            connection.execute(tables[f"agent_{name}"].insert(), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in rows:
            table = f"TABLE agent_{name}" if dialect == "mysql" else f"agent_{name}"
            connection.execute(text(f"ANALYZE {table}"))
    engine.dispose()


# -- the plans ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """One statement: the tables that it goes through from end to end, and how many rows it looks at (None: unknown)."""

    statement: str
    scanned: tuple[str, ...]
    rows: int | None


class Watch(Protocol):
    """Explains the statements that a store is about to run. `slack`: how often it counts one row at most."""

    looks: list[Look]
    slack: int


class PostgreSQLWatch:
    """`EXPLAIN ANALYZE`, rolled back: the plan for these parameters, and the one that is kept for later ones.

    After five plans the server decides whether one that is made without the parameters will do from then on.
    """

    slack = 1

    def __init__(self, store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: list[Look] = []
        self._url = driver_url(store._settings.url.render_as_string(hide_password=False))
        self._execute = execute = psycopg.Connection.execute

        def watched(connection: Any, query: Any, params: Any = None, **options: Any) -> Any:
            if isinstance(query, bytes):  # as the store sends them
                self._explain(query.decode(), params)
            return execute(connection, query, params, **options)

        monkeypatch.setattr(psycopg.Connection, "execute", watched)

    def _explain(self, statement: str, params: dict[str, Any]) -> None:
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", statement)))
        numbered = re.sub(r"%\((\w+)\)[sb]", lambda found: f"${names.index(found[1]) + 1}", statement)
        with psycopg.connect(self._url) as other:
            values = ", ".join(sql.Literal(params[name]).as_string(other) for name in names)
            self._execute(other, f"PREPARE looked AS {numbered}")
            for number in range(6):
                self._execute(other, "SAVEPOINT before")
                explain = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE looked{f'({values})' if names else ''}"
                explained = self._execute(other, explain).fetchone()
                self._execute(other, "ROLLBACK TO before")
                assert explained is not None
                if number in (0, 5):
                    self.looks.append(self._look(statement, explained[0][0]["Plan"]))
            other.rollback()

    @staticmethod
    def _look(statement: str, plan: dict[str, Any]) -> Look:
        scanned, rows = [], 0
        for node in _nodes(plan):
            kind = node["Node Type"]
            table = node.get("Relation Name", "")
            if table.startswith("agent_") and kind.endswith("Scan"):
                removed = sum(count for name, count in node.items() if name.startswith("Rows Removed"))
                rows += int((node["Actual Rows"] + removed) * node["Actual Loops"])
                if kind == "Seq Scan" and node["Actual Loops"]:
                    scanned.append(table)
            elif kind == "Bitmap Index Scan":
                rows += int(node["Actual Rows"] * node["Actual Loops"])
        return Look(statement, tuple(scanned), rows)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


class SQLiteWatch:
    """`EXPLAIN QUERY PLAN`, which counts no rows."""

    slack = 1

    def __init__(self, store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
        from agent_statestore.sql.sqlite.pool import PooledSQLite

        self.looks: list[Look] = []
        explaining = sqlite3.connect(str(store._settings.url.database))

        def watched(connection: Any, statement: str, params: Any = ()) -> Any:
            if re.match("SELECT|UPDATE|DELETE|INSERT", statement):
                plan = explaining.execute(f"EXPLAIN QUERY PLAN {statement}", params).fetchall()
                said = [detail for *_, detail in plan]
                # A scan that follows an index's order ends with the page.
                scanned = [
                    detail for detail in said if re.match(r"SCAN (agent_\w+|[cs])\b(?!.* USING .*INDEX)", detail)
                ]
                self.looks.append(Look(statement, tuple(scanned), None))
            return sqlite3.Connection.execute(connection, statement, params)

        monkeypatch.setattr(PooledSQLite, "execute", watched)
        self.close = explaining.close


class MariaDBWatch:
    """How often an engine is asked for a row: those that are put aside to be sorted count again."""

    slack = 3

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import pymysql.cursors

        self.looks: list[Look] = []
        execute = pymysql.cursors.Cursor.execute
        explaining = connect_to_mariadb(url)
        other = explaining.cursor()

        def watched(cursor: Any, query: Any, args: Any = None) -> Any:
            for statement in query.split(b";\n") if isinstance(query, bytes) else ():
                if statement.startswith(b"SELECT"):
                    execute(other, "FLUSH STATUS")
                    execute(other, re.sub(" FOR UPDATE.*", "", statement.decode()))
                    execute(other, "SHOW SESSION STATUS LIKE 'Handler_read_%'")
                    read = {name.removeprefix("Handler_read_"): int(count) for name, count in other.fetchall()}
                    # What a scan of the whole table, or of a sorted result, reads next.
                    scanned = ("a table",) if read["rnd_next"] > COUNT // 2 else ()
                    self.looks.append(Look(statement.decode(), scanned, sum(read.values())))
            return execute(cursor, query, args)

        monkeypatch.setattr(pymysql.cursors.Cursor, "execute", watched)
        self.close = explaining.close


# -- the stores --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql_store(postgresql_url: str) -> Iterator[SQLStore]:
    with fresh_database(postgresql_url) as url, SQLStore(url) as store:
        store.migrate()
        fill(store)
        yield store


@pytest.fixture(scope="module")
def postgresql18_store(postgresql18_url: str) -> Iterator[SQLStore]:
    with fresh_database(postgresql18_url) as url, SQLStore(url) as store:
        store.migrate()
        fill(store)
        yield store


@pytest.fixture(scope="module")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLStore]:
    folder: Path = tmp_path_factory.mktemp("plans")
    with SQLStore(f"sqlite:///{folder / 'store.db'}") as store:
        store.migrate()
        fill(store)
        yield store


@pytest.fixture(scope="module")
def mariadb_store(mariadb_url: str) -> Iterator[SQLStore]:
    with fresh_mariadb_database(mariadb_url) as url, SQLStore(url) as store:
        store.migrate()
        fill(store)
        yield store


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("postgresql18", marks=pytest.mark.full), "mariadb"])
def store(request: pytest.FixtureRequest) -> SQLStore:
    found: SQLStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def watch(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    match store._settings.dialect:
        case "postgresql":
            yield PostgreSQLWatch(store, monkeypatch)
        case "sqlite":
            sqlite = SQLiteWatch(store, monkeypatch)
            yield sqlite
            sqlite.close()
        case "mysql":
            mariadb = MariaDBWatch(store._settings.url.render_as_string(hide_password=False), monkeypatch)
            yield mariadb
            mariadb.close()


def assert_bounded(watch: Watch, at_most: int) -> None:
    assert watch.looks
    for look in watch.looks:
        assert look.scanned == (), look.statement
        assert look.rows is None or look.rows <= at_most * watch.slack, f"{look.rows} rows for {look.statement}"


# -- find --------------------------------------------------------------------------------------------------------------

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "session": {"session_id": "session-7"},
    "user": {"user_id": "user-7"},
    "agent": {"agent_id": "agent-1"},
    # MariaDB goes down to `created_before` from the newest one where it looks for a state.
    "time": {
        "created_after": from_us(CREATED_US + 1_000_000),
        "created_before": from_us(CREATED_US + (COUNT - 60) * 1000),
    },
}
AMONG: dict[str, frozenset[AgentState] | None] = {
    "any": None,
    "failed": frozenset({AgentState.FAILED}),
    "completed": frozenset({AgentState.COMPLETED}),
    "unhappy": frozenset({AgentState.FAILED, AgentState.CANCELLED}),
    "active": ACTIVE,
    "over": OVER,
}


@pytest.mark.parametrize("filters", FILTERS)
@cells(states=AMONG, oldest_first={"newest first": False, "oldest first": True})
def test_find_looks_at_little_more_than_a_page(
    store: SQLStore, watch: Watch, filters: str, states: frozenset[AgentState] | None, oldest_first: bool
) -> None:
    def page(cursor: str | None) -> Page:
        watch.looks.clear()
        return store.find(
            Query(**FILTERS[filters], states=states, limit=LIMIT, cursor=cursor, oldest_first=oldest_first)
        )

    first = page(None)
    assert first.items or filters == "session"
    # No index has both a session or user and the state: what matches one of them is looked through for the other. Where
    # several states are asked for, a page of each is.
    at_most = 3 * (LIMIT + 1) if states is None else 10 * (LIMIT + 1)
    assert_bounded(watch, at_most)
    if first.next_cursor is not None:
        second = page(first.next_cursor)
        assert second.items
        assert_bounded(watch, at_most)


@cells(state={state: state for state in AgentState})
def test_what_an_agent_has_in_one_state_is_found_without_its_others(
    store: SQLStore, watch: Watch, state: AgentState
) -> None:
    """There may be none among its thousands."""
    watch.looks.clear()
    found = store.find(Query(agent_id="agent-1", states=[state], limit=LIMIT))
    assert_bounded(watch, 3 * (len(found.items) + 2))


# -- documents ---------------------------------------------------------------------------------------------------------


def test_what_is_done_with_documents_looks_at_little_more_than_it_returns(store: SQLStore, watch: Watch) -> None:
    documents = store.documents
    here, gone = document_of(1).namespace, document_of(3).namespace
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        "get": (2, lambda: documents.get_many([document_of(4), document_of(40)])),
        "list": (LIMIT, lambda: documents.list(DocumentQuery(namespace=("a",), below=True, limit=LIMIT))),
        "last": (1, lambda: documents.list(DocumentQuery(namespace=here, newest_first=True, limit=1))),
        "by metadata": (10, lambda: documents.list(DocumentQuery(namespace=here, where={"n": 1}, limit=LIMIT))),
        "namespaces": (5, lambda: documents.namespaces(("a",), limit=5)),
        "write": (2, lambda: documents.write([Put(namespace=here, key=key, value=1) for key in (id_of(1), "new")])),
        "remove_under": (10, lambda: documents.remove_under(gone)),
        "tidy": (LIMIT, lambda: documents.tidy(LIMIT)),
    }
    for name, (at_most, call) in calls.items():
        watch.looks.clear()
        call()
        assert watch.looks, name
        assert_bounded(watch, 3 * (at_most + 2))


# -- streams -----------------------------------------------------------------------------------------------------------


def test_what_is_done_with_streams_looks_at_little_more_than_it_returns(store: SQLStore, watch: Watch) -> None:
    ids = [id_of(number) for number in range(COUNT) if state_of(number) is AgentState.IDLE and not is_deleted(number)]
    leases = [claim(store, execution_id).lease for execution_id in ids[-6:]]
    one = leases[0].execution_id
    page = store.read_events(one)
    assert page is not None
    cursors = {lease.execution_id: 0 for lease in leases}
    follower = store.listen_streams()
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        "read": (12, lambda: store.read_streams(cursors, LIMIT)),
        "read on": (6, lambda: store.read_streams(dict.fromkeys(cursors, page.last), LIMIT)),
        "append": (
            6,
            lambda: store.append_events([StreamAppend(lease=each, part=part_of(each, 1, *"ab")) for each in leases]),
        ),
        "append again": (
            6,
            lambda: store.append_events([StreamAppend(lease=each, part=part_of(each, 2, *"bc")) for each in leases]),
        ),
        "checkpoint": (
            4,
            lambda: store.checkpoint(one, Checkpoint(steps=(done(3),), stream=part_of(leases[0], 4, "d")), leases[0]),
        ),
        "checkpoint again": (
            4,
            lambda: store.checkpoint(one, Checkpoint(steps=(done(4),), stream=part_of(leases[0], 4, *"de")), leases[0]),
        ),
        "trim": (6, lambda: store.trim_stream(one, 3)),
    }
    if type(follower) is not PollingListener:
        follower.follow(cursors)
        calls["follow"] = 6, lambda: follower.wait(5)
        calls["tell"] = 0, lambda: store.tell_readers(cursors)
    for name, (at_most, call) in calls.items():
        watch.looks.clear()
        call()
        assert watch.looks, name
        assert_bounded(watch, 3 * (at_most + 2))
    follower.close()
    assert values_of(store, one) == [*"cde"]


# -- sweeping ----------------------------------------------------------------------------------------------------------

LATER = from_us(CREATED_US + COUNT * 2000)


def test_sweeps_look_at_little_more_than_they_take(store: SQLStore, watch: Watch) -> None:
    sweeps: dict[str, Callable[[], Any]] = {
        "take_due": lambda: store.take_due(LIMIT, TTL),
        "find_ended": lambda: store.find_ended(LATER, limit=LIMIT),
        "find_ended in some states": lambda: store.find_ended(LATER, states=[AgentState.COMPLETED], limit=LIMIT),
        "find_deleted": lambda: store.find_deleted(LATER, limit=LIMIT),
    }
    for name, sweep in sweeps.items():
        watch.looks.clear()
        assert len(sweep()) == LIMIT, name
        assert_bounded(watch, 4 * (LIMIT + 1))


def test_the_leases_of_one_host_are_looked_up(store: SQLStore, watch: Watch) -> None:
    leases = store.find_leases("host-7/")
    assert leases
    assert {lease.owner.partition("/")[0] for lease in leases} == {"host-7"}
    assert_bounded(watch, 3 * (len(leases) + 1))


# -- one execution -----------------------------------------------------------------------------------------------------


def test_what_concerns_one_execution_looks_at_no_other(store: SQLStore, watch: Watch) -> None:
    idle, active, over = id_of(some(AgentState.IDLE)), id_of(some(AgentState.WAITING)), some(AgentState.COMPLETED)
    exported = store.export(id_of(over))
    assert exported is not None
    calls: dict[str, Callable[[], object]] = {
        "get_context": lambda: store.get_context(idle),
        "get_summary": lambda: store.get_summary(idle),
        "get_steps": lambda: store.get_steps(idle, after=1),
        "get_audit": lambda: store.get_audit(idle),
        "get_by_idempotency_key": lambda: store.get_by_idempotency_key(agent_of(over), f"key-{over}"),
        "create": lambda: store.create_context("agent", session_id="session-7", idempotency_key="new"),
        "claim": lambda: store.claim(idle, "host:1", timedelta(days=1)),
        "send": lambda: store.send(active, event()),
        "checkpoint": lambda: store.checkpoint(active, Checkpoint(steps=(done(3),), state=AgentState.THINKING)),
        "export": lambda: store.export(active),
        "restore": lambda: store.restore(exported),
        "delete_context": lambda: store.delete_context(active),
    }
    for name, call in calls.items():
        watch.looks.clear()
        call()
        assert watch.looks, name
        assert_bounded(watch, 20)


@pytest.mark.parametrize("deleted", [False, True])
def test_purging_looks_for_one_other_execution_of_the_session(store: SQLStore, watch: Watch, deleted: bool) -> None:
    """Whether the others are deleted or not: one in ten sessions has deleted executions only."""
    assert store.purge(id_of(some(deleted=deleted)))
    assert_bounded(watch, 30)


def test_dropping_what_was_archived_looks_for_one_other_execution_of_the_session(store: SQLStore, watch: Watch) -> None:
    number = next(number for number in range(100, COUNT) if row_of(number, None)["ended_us"] and number % 10 == 1)
    exported = store.export(id_of(number))
    assert exported is not None
    watch.looks.clear()
    assert store.drop_archived(id_of(number), exported.place)
    assert_bounded(watch, 30)
