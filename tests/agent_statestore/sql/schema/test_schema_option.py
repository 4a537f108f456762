"""The options of a store's URL that say where its tables are: `schema` and `table_prefix`."""

import io
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from agent_statestore import UnsupportedURL
from agent_statestore.sql.schema import schema
from agent_statestore.sql.settings import parse_url
from agent_statestore.sql.tables import DEFAULT_PREFIX, Tables
from tests.agent_statestore.sql.schema.schemas import (
    context,
    count_of_tables,
    described,
    migrate,
    our_tables,
    rows,
    run,
    tables,
)
from tests.services.postgresql import driver_url


@pytest.mark.parametrize(
    ("url", "dialect", "driver"),
    [
        ("sqlite:///store.db", "sqlite", "sqlite+pysqlite"),
        ("postgresql://host/db", "postgresql", "postgresql+psycopg"),
        ("postgresql+psycopg://host/db", "postgresql", "postgresql+psycopg"),
        ("mysql://host/db", "mysql", "mysql+pymysql"),
        ("mysql+pymysql://host/db", "mysql", "mysql+pymysql"),
        ("mariadb://host/db", "mysql", "mariadb+pymysql"),
        ("mariadb+pymysql://host/db", "mysql", "mariadb+pymysql"),
    ],
)
def test_a_url_tells_the_database_and_its_driver(url: str, dialect: str, driver: str) -> None:
    settings = parse_url(url)
    assert (settings.dialect, settings.is_sqlite) == (dialect, dialect == "sqlite")
    assert settings.url.drivername == driver
    assert settings.tables == Tables(DEFAULT_PREFIX, None)
    assert settings.keeps_deleted


def test_the_stores_options_are_taken_out_and_the_drivers_are_left() -> None:
    settings = parse_url("mysql://host/db?schema=agents&table_prefix=my_&soft_delete=off&charset=utf8mb4&pool_size=2")
    assert settings.tables.contexts == "agents.my_contexts"
    assert not settings.keeps_deleted
    assert settings.pool_size == 2
    assert dict(settings.url.query) == {"charset": "utf8mb4"}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///store.db?schema=agents", "SQLite has no schemas"),
        ("sqlite://", "needs a file"),
        ("mysql://host", "needs the name of a database"),
        ("postgresql://host/db?schema=Agents", "'Agents' is no schema"),
        ("postgresql://host/db?schema=a-b", "'a-b' is no schema"),
        ("postgresql://host/db?schema=pg_agents", "reserved"),
        ("postgresql://host/db?schema=order", "reserved"),
        ("mysql://host/db?schema=interval", "reserved"),
        ("postgresql://host/db?soft_delete=maybe", "'maybe' is no soft_delete"),
        ("postgresql+asyncpg://host/db", "the driver must be one of"),
        ("mysql+mysqldb://host/db", "the driver must be one of"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, reason: str) -> None:
    with pytest.raises(UnsupportedURL, match=reason):
        parse_url(url)


def test_migrate_makes_the_schema_and_stays_in_it(postgresql_database_url: str) -> None:
    plain, url = postgresql_database_url, f"{postgresql_database_url}?schema=agents"
    migrate(url)
    assert len(tables(url)) == count_of_tables(url) + 1
    assert tables(plain) == set()
    schema.check_schema(parse_url(url))
    assert schema.read_revision(parse_url(plain)) is None
    migrated = described(url)

    migrate(plain)
    migrate(f"{plain}?schema=others")
    run(url, "INSERT INTO agents.agent_sessions (session_id, created_us, updated_us) VALUES ('one', 1, 1)")
    migrate(plain, "base")
    migrate(f"{plain}?schema=others", "0001")
    assert described(url) == migrated
    assert rows(url, "SELECT session_id FROM agents.agent_sessions") == [("one",)]
    migrate(url, "base")
    assert tables(url) == set()


def test_the_printed_ddl_makes_the_schema_too(postgresql_database_url: str) -> None:
    url = f"{postgresql_database_url}?schema=agents&table_prefix=my_"
    migrate(url)
    migrated = described(url)
    migrate(url, "base")
    run(url, "DROP SCHEMA agents")
    output = io.StringIO()
    schema.print_ddl(parse_url(url), "head", output)
    with psycopg.connect(driver_url(postgresql_database_url), autocommit=True) as psql:
        psql.execute(output.getvalue().encode())
    assert described(url) == migrated
    schema.check_schema(parse_url(url))


def test_a_user_who_may_not_make_schemas_can_migrate_a_given_one(postgresql_database_url: str) -> None:
    name = make_url(postgresql_database_url).database
    role = f"role_{name}"
    run(postgresql_database_url, f"CREATE ROLE {role} LOGIN", f"CREATE SCHEMA agents AUTHORIZATION {role}")
    try:
        url = make_url(f"{postgresql_database_url}?schema=agents").set(username=role)
        migrate(url.render_as_string(hide_password=False))
        assert len(our_tables(f"{postgresql_database_url}?schema=agents")) == count_of_tables(postgresql_database_url)
    finally:
        run(postgresql_database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_schema_of_mariadb_is_another_database(mariadb_database_url: str) -> None:
    home, place = mariadb_database_url, f"schema_{uuid4().hex[:20]}"
    url = f"{home}?schema={place}"
    run(home, f"CREATE DATABASE {place}")
    try:
        migrate(url)
        assert len(tables(url)) == count_of_tables(url) + 1
        assert tables(home) == set()
        # Without a database of its own the connection finds them as well.
        without = make_url(url).set(database=None).render_as_string(hide_password=False)
        schema.check_schema(parse_url(without))
        migrate(without, "base")
        assert tables(url) == set()
    finally:
        run(home, f"DROP DATABASE {place}")


def test_the_version_of_one_prefix_is_not_that_of_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    migrate(url, "0001")
    migrate(f"{url}?table_prefix=other_")
    run(url, context("one"))
    assert schema.read_revision(parse_url(url)) == "0001"
    assert schema.read_revision(parse_url(f"{url}?table_prefix=other_")) == "0007"
