"""The SQL schema: migrated equals fresh, both ways, safe to run twice at once, and none of other people's business."""

import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect

from statestore import SchemaMismatch, UnknownRevision
from statestore.sql import SQLStore, schema
from statestore.sql.settings import parse_url
from statestore.sql.tables import REVISION, metadata_of


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgresql_database_url"))


def with_engine(url: str, look: Callable[[Engine], object]) -> object:
    engine = create_engine(parse_url(url).url)
    try:
        return look(engine)
    finally:
        engine.dispose()


def indexes(url: str) -> object:
    """Every index with its columns, uniqueness and condition, as the database describes it."""

    def look(engine: Engine) -> object:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                rows = connection.exec_driver_sql(
                    "SELECT name, replace(sql, '\"', '') FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
                )
            else:
                rows = connection.exec_driver_sql(
                    "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'agent%%' "
                    "AND tablename <> 'agent_alembic_version'"
                )
            return sorted(tuple(row) for row in rows)

    return with_engine(url, look)


def tables(url: str) -> object:
    return with_engine(url, lambda engine: set(inspect(engine).get_table_names()))


def migrate(url: str, revision: str = "head") -> None:
    with SQLStore(url) as store:
        store.migrate(revision)


def test_the_migrated_schema_is_the_declared_one(url: str) -> None:
    migrate(url)

    def differences(engine: Engine) -> object:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": "agent_alembic_version"})
            return compare_metadata(context, metadata_of())

    assert with_engine(url, differences) == []


def test_the_migrated_indexes_are_the_declared_ones(url: str) -> None:
    migrate(url)
    migrated = indexes(url)
    migrate(url, "base")
    with_engine(url, lambda engine: metadata_of().create_all(engine))
    assert migrated == indexes(url)


def test_the_package_works_on_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_revision_files_are_named_after_their_revision() -> None:
    folder = Path(schema.__file__).with_name("migrations") / "versions"
    for number, path in enumerate(sorted(folder.glob("*.py")), 1):
        assert path.name.startswith(f"{number:04}_")
        assert f'revision = "{number:04}"' in path.read_text()


def test_down_and_up_again(url: str) -> None:
    migrate(url)
    migrate(url, "base")
    assert not {name for name in tables(url) if name != "agent_alembic_version"}  # type: ignore[attr-defined]
    migrate(url, REVISION)
    with SQLStore(url) as store:
        store.check()
        assert store.revision() == REVISION


def test_the_ddl_is_printed_without_a_database() -> None:
    output = io.StringIO()
    store = SQLStore("postgresql://nobody@localhost:1/nothing")
    store.migrate("head", sql=True, output=output)
    assert "CREATE TABLE agent_contexts" in output.getvalue()
    assert "agent_alembic_version" in output.getvalue()
    down = io.StringIO()
    store.migrate("base", sql=True, output=down)
    assert "DROP TABLE agent_contexts" in down.getvalue()


@pytest.mark.parametrize("revision", ["9999", "nonsense", ""])
def test_an_unknown_target_is_refused(url: str, revision: str) -> None:
    with SQLStore(url) as store, pytest.raises(UnknownRevision):
        store.migrate(revision)


def test_postgresql_is_never_migrated_unasked(postgresql_database_url: str) -> None:
    with SQLStore(postgresql_database_url) as store:
        with pytest.raises(SchemaMismatch) as refused:
            store.check()
        assert refused.value.found is None
        assert refused.value.expected == REVISION
        with pytest.raises(SchemaMismatch):
            store.create_context("agent")
        with pytest.raises(SchemaMismatch):
            store.get_context("any")
    assert tables(postgresql_database_url) == set()


def test_a_schema_from_the_future_is_refused(url: str) -> None:
    migrate(url)

    def into_the_future(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE agent_alembic_version SET version_num = '9999'")

    with_engine(url, into_the_future)
    with SQLStore(url) as store:
        with pytest.raises(SchemaMismatch) as refused:
            store.check()
        assert refused.value.found == "9999"
        with pytest.raises(SchemaMismatch):
            store.migrate()


def test_migrating_at_once_does_no_harm(url: str) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def run() -> None:
        try:
            start.wait()
            migrate(url)
        except BaseException as error:  # noqa: BLE001 - the main thread looks at it
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with SQLStore(url) as store:
        store.check()


def test_two_prefixes_and_foreign_tables_live_side_by_side(url: str) -> None:
    def mine(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            connection.exec_driver_sql("CREATE TABLE agents (id INTEGER)")
            connection.exec_driver_sql("INSERT INTO agents VALUES (1)")

    with_engine(url, mine)
    migrate(url)
    migrate(f"{url}?table_prefix=other_")
    with SQLStore(url) as store, SQLStore(f"{url}?table_prefix=other_") as other:
        store.create_context("agent")
        kept = other.create_context("agent")
        assert store.clear() == 1
        assert other.get_context(kept.execution_id) is not None
    migrate(url, "base")
    assert {"agents", "alembic_version", "other_contexts"} <= tables(url)  # type: ignore[operator]
