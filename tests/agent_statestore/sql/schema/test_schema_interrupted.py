"""A migration that does not come to its end: undone where the database can, and mended by the next one elsewhere."""

import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from agent_statestore import SchemaMismatch
from agent_statestore.sql.schema import schema
from agent_statestore.sql.settings import parse_url
from tests.agent_statestore.sql.schema.schemas import (
    DATABASES,
    context,
    described,
    empty_database,
    migrate,
    rows,
    run,
    tables,
)
from tests.services.mariadb import fresh_mariadb_database

_WRITES = ("CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE")
_SESSIONS = "SELECT session_id, user_id, created_us, updated_us FROM agent_sessions"
_CONTEXTS = "SELECT execution_id, ended_us, audit_count FROM agent_contexts ORDER BY 1"


class Interrupted(BaseException):
    """Raised in place of a statement."""


@contextmanager
def before_write(act: Callable[[int, str], None]) -> Iterator[None]:
    """Calls `act` with the number, from 1, and the text of each statement that is going to write."""
    count = 0

    def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal count
        if statement.lstrip().startswith(_WRITES):
            count += 1
            act(count, statement)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", look)


def interrupt_at(number: int) -> Callable[[int, str], None]:
    def act(count: int, _statement: str) -> None:
        if count == number:
            raise Interrupted

    return act


def writes(url: str, revision: str) -> int:
    """How many statements of the migration write."""
    numbers: list[int] = []
    with before_write(lambda number, _: numbers.append(number)):
        migrate(url, revision)
    return len(numbers)


def start(url: str, revision: str) -> None:
    """A database at this revision, with executions in it."""
    migrate(url, revision)
    if revision != "base":
        run(url, context("one", user_id="user"), context("two", state="completed", updated_us=7000, session_id=None))


# On every commit it is interrupted at fewer statements of the same ways.
@pytest.mark.parametrize(
    ("before", "target", "stride"),
    [
        *[("base", "head", 18), ("0001", "head", 8), ("head", "0001", 8), ("head", "base", 14)],
        *[
            pytest.param(before, target, stride, marks=pytest.mark.full)
            for before, target, stride in (
                *[("base", "head", 11), ("0001", "head", 3), ("head", "0001", 3), ("head", "base", 5)],
            )
        ],
    ],
)
def test_mariadb_is_mended_wherever_it_was_interrupted(mariadb_url: str, before: str, target: str, stride: int) -> None:
    with fresh_mariadb_database(mariadb_url) as url:
        migrate(url)
        newest = described(url)
        migrate(url, "base")
        start(url, before)
        total = writes(url, target)
    assert total > 10
    for number in range(1, total + 1, stride):
        with fresh_mariadb_database(mariadb_url) as url:
            start(url, before)
            with before_write(interrupt_at(number)), pytest.raises(Interrupted):
                migrate(url, target)
            # Before the first statement nothing has happened yet.
            found = {"base": None, "head": "0007"}.get(before, before) if number == 1 else "unfinished"
            assert schema.read_revision(parse_url(url)) == found
            # Whoever comes next may want to go where the first did, or back.
            if number % 2:
                migrate(url, target)
            migrate(url)
            schema.check_schema(parse_url(url))
            assert described(url) == newest
            if before == "0001":
                assert rows(url, _CONTEXTS) == [("one", None, 0), ("two", 7000, 0)]
                assert rows(url, _SESSIONS) == [("session", "user", 1000, 1000)]
            migrate(url, "base")
            assert tables(url) == set()


def test_an_unfinished_migration_is_finished_by_going_down(mariadb_database_url: str) -> None:
    url = mariadb_database_url
    migrate(url, "0001")
    first = described(url)
    for number in (2, 9, 14):
        with before_write(interrupt_at(number)), pytest.raises(Interrupted):
            migrate(url)
        with pytest.raises(SchemaMismatch, match=r"revision unfinished.*run .*migrate"):
            schema.check_schema(parse_url(url))
        migrate(url, "0001")
        assert described(url) == first
    for number in (2, 9, 14):
        with before_write(interrupt_at(number)), pytest.raises(Interrupted):
            migrate(url)
        migrate(url, "base")
        assert tables(url) == set()
        migrate(url, "0001")


@pytest.mark.parametrize(
    "statements", [2, 17, *(pytest.param(number, marks=pytest.mark.full) for number in (1, 7, 21))]
)
def test_a_printed_script_that_was_stopped_is_finished(mariadb_url: str, statements: int) -> None:
    output = io.StringIO()
    with fresh_mariadb_database(mariadb_url) as url:
        migrate(url)
        newest = described(url)
    with fresh_mariadb_database(mariadb_url) as url:
        schema.print_ddl(parse_url(url.replace("mysql+", "mariadb+")), "head", output)
        script = output.getvalue().split(";\n")
        assert len(script) > 25
        run(url, *script[:statements])
        with pytest.raises(SchemaMismatch):
            schema.check_schema(parse_url(url))
        migrate(url)
        assert described(url) == newest
        schema.check_schema(parse_url(url))


def _migrate_and_die(url: str) -> None:
    def die(_number: int, statement: str) -> None:
        if "INTO agent_sessions" in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    with before_write(die):
        migrate(url)


@pytest.mark.parametrize("kind", DATABASES)
def test_a_killed_migration_is_repeated(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with empty_database(kind, request, tmp_path) as url:
        migrate(url)
        newest = described(url)
        migrate(url, "base")
        start(url, "0001")
        first = described(url)
        process = multiprocessing.get_context("forkserver").Process(target=_migrate_and_die, args=(url,))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if kind == "mariadb":
            assert schema.read_revision(parse_url(url)) == "unfinished"
        else:
            assert schema.read_revision(parse_url(url)) == "0001"
            assert described(url) == first
        migrate(url)
        assert described(url) == newest
        assert rows(url, _CONTEXTS) == [("one", None, 0), ("two", 7000, 0)]
        assert rows(url, _SESSIONS) == [("session", "user", 1000, 1000)]
