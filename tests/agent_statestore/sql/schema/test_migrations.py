"""The SQL schema: migrated equals declared, both ways, with data, several at once, and none of others' business."""

import io
import itertools
import logging
import multiprocessing
import multiprocessing.synchronize
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from agent_statestore import Checkpoint, NewExecution, SchemaMismatch, UnknownRevision
from agent_statestore.documents import Put
from agent_statestore.sql import IncompleteSchema, SQLStore, metadata_of
from agent_statestore.sql.schema import schema
from agent_statestore.sql.schema.structure import kind_of, missing_parts
from agent_statestore.sql.settings import parse_url
from agent_statestore.sql.sqlite.database import SQLiteDatabase
from agent_statestore.sql.tables import REVISION
from agent_statestore.streams.records import StreamAppend
from agent_statestore.testing.contract.streams import part_of, values_of
from agent_statestore.testing.kit.builders import TTL, claimed, create, done
from tests.agent_statestore.sql.schema.schemas import (
    DATABASES,
    connected,
    context,
    count_of_tables,
    create_declared,
    described,
    empty_database,
    insert,
    migrate,
    our_tables,
    rows,
    run,
    tables,
)
from tests.services.mariadb import connect
from tests.services.postgresql import driver_url


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with empty_database(request.param, request, tmp_path) as url:
        yield url


# -- migrated is declared ----------------------------------------------------------------------------------------------


def test_the_migrated_schema_is_the_declared_one(url: str) -> None:
    migrate(url)
    migrated = described(url)
    migrate(url, "base")
    create_declared(url)
    assert len(migrated) == count_of_tables(url)
    assert migrated == described(url)


def test_alembic_sees_no_difference_between_them(url: str) -> None:
    migrate(url)
    with connected(url) as connection:
        options = {"version_table": "agent_alembic_version", "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata_of(dialect=kind_of(connection))) == []
        assert missing_parts(connection, parse_url(url)) == ()


def test_ids_and_names_are_compared_byte_by_byte(url: str) -> None:
    migrate(url)
    # To a database that thinks otherwise these are the same: in upper case, with an accent, with a space behind.
    alike = ["a", "A", "\u00e1", "a "]
    run(url, *(context(name, agent_id=name, idempotency_key="key") for name in alike))
    run(url, *(insert("agent_sessions", session_id=name, created_us=1, updated_us=1) for name in alike))
    for name in alike:
        assert rows(url, f"SELECT execution_id FROM agent_contexts WHERE agent_id = '{name}'") == [(name,)]
    ordered = rows(url, "SELECT execution_id FROM agent_contexts ORDER BY execution_id")
    assert ordered == [(name,) for name in sorted(alike)]


def test_nothing_that_a_step_changes_is_indexed(postgresql_database_url: str) -> None:
    """So PostgreSQL can leave the indexes alone: a heap-only update."""
    migrate(postgresql_database_url)
    run(postgresql_database_url, context("one", due_us=9000, owner="owner"))
    changed = "version = 2, step_count = 2, updated_us = 3000, checkpoint_id = 'c', audit_count = 1, note_count = 3"
    run(
        postgresql_database_url,
        f"UPDATE agent_contexts SET {changed}, signal_count = 1, intents = '{{}}', pending = '{{}}', rings = 0",
        "SELECT pg_stat_force_next_flush()",
    )
    statistics = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'agent_contexts'"
    assert rows(postgresql_database_url, statistics) == [(1, 1)]


def test_the_package_works_on_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_revision_files_are_named_after_their_revision() -> None:
    folder = Path(schema.__file__).with_name("migrations") / "versions"
    for number, path in enumerate(sorted(folder.glob("*.py")), 1):
        assert path.name.startswith(f"{number:04}_")
        assert f'revision = "{number:04}"' in path.read_text()


# -- up and down -------------------------------------------------------------------------------------------------------


def test_going_down_to_nothing_leaves_nothing(url: str) -> None:
    migrate(url)
    migrate(url, "base")
    assert tables(url) == set()
    assert schema.read_revision(parse_url(url)) is None
    migrate(url, "base")
    assert tables(url) == set()
    migrate(url, REVISION)
    schema.check_schema(parse_url(url))


def test_every_revision_leads_back_to_itself(url: str) -> None:
    revisions = [f"{number:04}" for number in range(1, int(REVISION) + 1)]
    seen = []
    for revision in revisions:
        migrate(url, revision)
        seen.append(described(url))
    assert all(older != newer for older, newer in itertools.pairwise(seen))
    for revision, as_it_was in [*zip(revisions, seen, strict=True)][::-1]:
        migrate(url, revision)
        assert schema.read_revision(parse_url(url)) == revision
        assert described(url) == as_it_was
    migrate(url)
    assert described(url) == seen[-1]


def test_documents_go_with_their_revision_and_nothing_else_does(url: str) -> None:
    migrate(url)
    with SQLStore(url) as store:
        execution_id = create(store)
        store.documents.write([Put(namespace=("a", "b"), key=str(number), value=number) for number in range(3)])
        migrate(url, "0005")
        assert "agent_documents" not in tables(url)
        migrate(url)
        assert store.documents.namespaces() == ()
        store.documents.put(("a", "b"), "k", 1, if_version=0)
        assert [item.execution_id for item in store.find().items] == [execution_id]


def test_workers_of_the_version_before_go_on_while_documents_come(url: str) -> None:
    """What they do with executions is done by the same statements in both versions."""
    migrate(url, "0005")
    script_url = url.replace("mysql+", "mariadb+")
    with SQLStore(url) as old:
        if isinstance(old._database, SQLiteDatabase):
            old._database.is_ready = True  # it was, before the migration
        execution_id, lease = claimed(old)
        # It changes no table from before, so that it neither waits for them nor keeps them waiting.
        assert not re.findall(r"\b(ALTER|agent_contexts|agent_duties)\b", ddl(script_url, "0005:0006"))
        migrate(url, "0006")
        old.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        old.release(lease)
        assert old.claim(execution_id, "host:1", TTL) is not None
        assert old.get_steps(execution_id) == (done(1),)


def test_workers_of_the_version_before_go_on_while_streams_come(url: str) -> None:
    """They name no new column; what they create has a stream, and what they purge takes its events along."""
    migrate(url, "0006")
    with SQLStore(url) as old, SQLStore(url) as new:
        if isinstance(old._database, SQLiteDatabase):
            old._database.is_ready = True  # it was, before the migration
        execution_id, lease = claimed(old)
        for number in range(1, 8):  # PostgreSQL has it prepared by then
            old.checkpoint(execution_id, Checkpoint(steps=(done(number),)), lease)
        with pytest.raises(SchemaMismatch):
            old.append_events([StreamAppend(lease=lease, part=part_of(lease, 1, "too early"))])
        migrate(url)
        old.checkpoint(execution_id, Checkpoint(steps=(done(8),)), lease)
        (appended,) = new.append_events([StreamAppend(lease=lease, part=part_of(lease, 1, *"ab"))])
        assert appended.accepted
        assert values_of(new, execution_id) == [*"ab"]
        old.create_many([NewExecution(agent_id="a") for _ in range(3)])
        old.release(lease)
        assert old.claim(execution_id, "host:1", TTL) is not None
        assert len(old.get_steps(execution_id)) == 8
        migrate(url, "0006")  # and back: the events are gone, the executions are not
        assert "agent_events" not in tables(url)
        migrate(url)
        assert values_of(new, execution_id) == []
        (again,) = new.append_events([StreamAppend(lease=claimed(new)[1], part=part_of(lease, 1, "c"))])
        assert again.accepted
        for item in new.find().items:
            old.purge(item.execution_id)
        assert rows(url, "SELECT * FROM agent_events") == []


def test_executions_from_before_are_kept(url: str) -> None:
    migrate(url, "0001")
    run(
        url,
        context("one", session_id="chat", user_id="old", created_us=1000),
        context("two", session_id="chat", user_id="new", created_us=3000, updated_us=5000, state="completed"),
        context("three", session_id="chat", user_id=None, created_us=4000),
        context("four", session_id=None, state="failed", updated_us=6000),
        insert("agent_steps", execution_id="one", step_number=1, name="step", is_done=1, data="{}")
        if "postgresql" not in url
        else insert("agent_steps", execution_id="one", step_number=1, name="step", is_done="true", data="{}"),
    )
    migrate(url)
    kept = rows(
        url, "SELECT execution_id, ended_us, audit_count, deleted_us FROM agent_contexts ORDER BY created_us, 1"
    )
    assert kept == [("four", 6000, 0, None), ("one", None, 0, None), ("two", 5000, 0, None), ("three", None, 0, None)]
    assert rows(url, "SELECT * FROM agent_sessions") == [("chat", "new", 1000, 4000)]
    assert rows(url, "SELECT name FROM agent_steps") == [("step",)]

    run(url, "UPDATE agent_contexts SET deleted_us = 1 WHERE execution_id = 'one'")
    run(url, insert("agent_audit", execution_id="one", position=1, at_us=1, event="created", attempt=0))
    migrate(url, "0001")
    left = rows(url, "SELECT execution_id FROM agent_contexts ORDER BY 1")
    # The first schema has nothing that would hide a deleted execution.
    assert left == [("four",), ("three",), ("two",)]
    assert rows(url, "SELECT name FROM agent_steps") == []
    migrate(url)
    assert rows(url, "SELECT session_id FROM agent_sessions") == [("chat",)]


# -- the printed DDL ---------------------------------------------------------------------------------------------------


def ddl(url: str, revision: str = "head") -> str:
    output = io.StringIO()
    schema.print_ddl(parse_url(url), revision, output)
    return output.getvalue()


def run_script(url: str, script: str) -> None:
    """Runs it as a database's administrator would, with the database's own means."""
    settings = parse_url(url)
    if settings.dialect == "sqlite":
        assert settings.url.database is not None
        with sqlite3.connect(settings.url.database) as connection:
            connection.executescript(script)
        connection.close()
    elif settings.dialect == "postgresql":
        with psycopg.connect(driver_url(url), autocommit=True) as psql:
            psql.execute(script.encode())
    else:
        with connect(url) as mysql, mysql.cursor() as cursor:
            for statement in script.split(";\n"):
                if statement.strip():
                    cursor.execute(statement)


def test_the_printed_ddl_makes_the_migrated_schema(url: str) -> None:
    # What answers cannot be asked, so the URL has to tell it.
    script_url = url.replace("mysql+", "mariadb+")
    migrate(url)
    migrated = described(url)
    migrate(url, "base")
    run_script(url, ddl(script_url))
    assert described(url) == migrated
    schema.check_schema(parse_url(url))
    run_script(url, ddl(script_url, "base"))
    assert tables(url) == set()


def test_a_printed_way_between_revisions_keeps_what_is_stored(url: str) -> None:
    script_url = url.replace("mysql+", "mariadb+")
    migrate(url)
    newest = described(url)
    migrate(url, "0001")
    first = described(url)
    is_done = "true" if "postgresql" in url else 1
    run(
        url,
        *(context(name, session_id="chat") for name in ("kept", "deleted")),
        *(
            insert("agent_steps", execution_id=name, step_number=1, name=name, is_done=is_done, data="{}")
            for name in ("kept", "deleted")
        ),
    )

    run_script(url, ddl(script_url, "0001:0007"))
    assert described(url) == newest
    assert schema.read_revision(parse_url(url)) == "0007"
    assert rows(url, "SELECT session_id FROM agent_sessions") == [("chat",)]

    run(url, "UPDATE agent_contexts SET deleted_us = 1 WHERE execution_id = 'deleted'")
    run_script(url, ddl(script_url, "head:0001"))
    assert described(url) == first
    assert schema.read_revision(parse_url(url)) == "0001"
    assert rows(url, "SELECT execution_id FROM agent_contexts") == [("kept",)]
    assert rows(url, "SELECT name FROM agent_steps") == [("kept",)]

    run_script(url, ddl(script_url, "0001:base"))
    assert tables(url) == set()


def test_a_way_from_nothing_is_that_without_a_beginning() -> None:
    url = "postgresql://nobody@localhost:1/nothing?schema=agents"
    assert ddl(url, "base:head") == ddl(url)
    assert "CREATE SCHEMA" in ddl(url)
    assert "CREATE SCHEMA" not in ddl(url, "0001:0007")
    assert ddl(url, "0007:base") == ddl(url, "base")


@pytest.mark.parametrize(
    "way", ["0001:0001", "head:0007", ":0002", "0001:", "9999:head", "0001:nonsense", "0001:0002:1"]
)
def test_a_way_that_is_none_is_refused(way: str) -> None:
    with pytest.raises(UnknownRevision):
        ddl("postgresql://nobody@localhost:1/nothing", way)


def test_a_printed_script_that_stops_in_the_middle_leaves_nothing(tmp_path: Path, postgresql_database_url: str) -> None:
    for url in (f"sqlite:///{tmp_path / 'store.db'}", postgresql_database_url):
        head, _, _ = ddl(url).partition("INSERT INTO agent_sessions")
        with pytest.raises((sqlite3.Error, psycopg.Error)):
            run_script(url, f"{head} nonsense;")
        assert tables(url) == set()


def test_the_ddl_is_printed_without_a_database() -> None:
    assert "CREATE TABLE agent_contexts" in ddl("postgresql://nobody@localhost:1/nothing")
    assert "DROP TABLE agent_contexts" in ddl("postgresql://nobody@localhost:1/nothing", "base")
    assert "COLLATE utf8mb4_0900_bin" in ddl("mysql://nobody@localhost:1/nothing")
    assert "COLLATE utf8mb4_nopad_bin" in ddl("mariadb://nobody@localhost:1/nothing")


@pytest.mark.parametrize("revision", ["9999", "nonsense", "", "0001:0002"])
def test_an_unknown_target_is_refused(revision: str) -> None:
    with pytest.raises(UnknownRevision):
        migrate("postgresql://nobody@localhost:1/nothing", revision)


# -- which schema the store works on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_server_is_never_migrated_unasked(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with empty_database(kind, request, tmp_path) as url, SQLStore(url) as store:
        with pytest.raises(SchemaMismatch) as refused:
            store.check()
        assert refused.value.found is None
        assert refused.value.expected == REVISION
        with pytest.raises(SchemaMismatch):
            store.create_context("agent")
        with pytest.raises(SchemaMismatch):
            store.get_context("any")
        assert tables(url) == set()


def test_a_schema_that_is_too_old_or_too_new_is_refused(url: str) -> None:
    migrate(url, "0001")
    with pytest.raises(SchemaMismatch, match=rf"revision 0001.*needs {REVISION}: run .*migrate") as refused:
        schema.check_schema(parse_url(url))
    assert refused.value.found == "0001"
    migrate(url)
    run(url, "UPDATE agent_alembic_version SET version_num = '9999'")
    for look in (schema.check_schema, schema.ensure_schema, lambda settings: schema.migrate(settings, "base")):
        with pytest.raises(SchemaMismatch, match=r"revision 9999.*upgrade celery-agents") as refused:
            look(parse_url(url))
        assert refused.value.found == "9999"
    assert len(our_tables(url)) == count_of_tables(url)


def test_a_table_of_somebody_elses_is_not_taken_for_ours(url: str) -> None:
    run(url, "CREATE TABLE agent_sessions (id INTEGER, name VARCHAR(10))")
    for act in (schema.check_schema, schema.ensure_schema, lambda settings: schema.migrate(settings, "head")):
        with pytest.raises(IncompleteSchema, match="another table_prefix") as refused:
            act(parse_url(url))
        assert "agent_contexts" in refused.value.missing
        assert "agent_sessions.session_id" in refused.value.missing
    assert tables(url) == {"agent_sessions"}


def test_two_prefixes_and_foreign_tables_live_side_by_side(url: str) -> None:
    run(
        url,
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "CREATE TABLE agents (id INTEGER)",
        "INSERT INTO agents VALUES (1)",
    )
    migrate(url)
    migrate(f"{url}?table_prefix=other_")
    run(url, context("one"))
    assert rows(url, "SELECT count(*) FROM other_contexts") == [(0,)]
    migrate(url, "base")
    assert {"agents", "alembic_version", "other_contexts"} <= tables(url)
    assert our_tables(url) == set()


# -- several at once ---------------------------------------------------------------------------------------------------


def _migrate_often(url: str, start: multiprocessing.synchronize.Barrier, targets: tuple[str, ...]) -> None:
    start.wait()
    for target in targets:
        migrate(url, target)


def test_migrating_at_once_does_no_harm(url: str) -> None:
    server = multiprocessing.get_context("forkserver")
    start = server.Barrier(2)
    ways = (("head", "0001", "head"), ("head", "base", "head"))
    processes = [server.Process(target=_migrate_often, args=(url, start, way)) for way in ways]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    migrated = described(url)
    schema.check_schema(parse_url(url))
    migrate(url, "base")
    create_declared(url)
    assert migrated == described(url)


# -- the log -----------------------------------------------------------------------------------------------------------


def test_the_first_use_of_a_file_does_not_fill_the_log(tmp_path: Path) -> None:
    # In a process of its own: Alembic also talks when it is imported for the first time.
    script = (
        "import logging, sys\n"
        "logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)\n"
        "from agent_statestore.sql.schema import schema\n"
        "from agent_statestore.sql.settings import parse_url\n"
        "schema.ensure_schema(parse_url(sys.argv[1]))\n"
        "schema.migrate(parse_url(sys.argv[1]), 'base')\n"
    )
    url = f"sqlite:///{tmp_path / 'store.db'}"
    said = subprocess.run([sys.executable, "-c", script, url], check=True, capture_output=True, text=True)
    assert said.stdout + said.stderr == ""


def test_a_users_own_alembic_still_talks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    url = f"sqlite:///{tmp_path / 'store.db'}"
    migrate(url)
    assert caplog.records == []
    with connected(url) as connection:
        MigrationContext.configure(connection)
    assert [record.name for record in caplog.records] == ["alembic.runtime.migration"] * 2
