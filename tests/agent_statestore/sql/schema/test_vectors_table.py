"""The table of vectors: made where the extension is, whenever that comes, and gone with the rest."""

import io
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from agent_statestore.recall.vectors import DocumentVectors, unit
from agent_statestore.sql import SQLStore
from agent_statestore.sql.postgresql.vectors import PostgreSQLVectors
from tests.conftest import fresh_database
from tests.services.postgresql import driver_url, make_pgvector

ADA = ("user", "ada")


@pytest.fixture
def url(postgresql_url: str) -> Iterator[str]:
    with fresh_database(postgresql_url) as url:
        yield url


def run(url: str, statement: str) -> list[Any]:
    with psycopg.connect(driver_url(url), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> set[str]:
    return {name for (name,) in run(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def ddl(url: str, revision: str) -> str:
    output = io.StringIO()
    with SQLStore(url) as store:
        store.migrate(revision, sql=True, output=output)
    return output.getvalue()


def test_an_extension_that_comes_later_is_used_after_the_next_migrate(url: str) -> None:
    with SQLStore(url) as store:
        store.migrate()
        assert type(store.vectors) is DocumentVectors
        store.vectors.put(ADA, "m", [("a", unit([1, 0])), ("b", unit([0, 1]))])
        make_pgvector(url)
        with SQLStore(url) as before_migrate:
            assert type(before_migrate.vectors) is DocumentVectors
        store.migrate()
        with SQLStore(url) as later:
            later.check()
            assert isinstance(later.vectors, PostgreSQLVectors)
            found = later.vectors.nearest(ADA, "m", unit([1, 0.1]), 2)
            assert [key for key, _ in found] == ["a", "b"]
            # A worker that was started before writes documents alone.
            store.vectors.put(ADA, "m", [("c", unit([1, 0.1]))])
            assert later.vectors.nearest(ADA, "m", unit([1, 0.1]), 1)[0][0] == "c"
            later.documents.remove_under(ADA)
            assert run(url, "SELECT count(*) FROM agent_vectors") == [(0,)], "erased, not only not found"


def test_a_vector_that_is_damaged_is_passed_over(url: str) -> None:
    make_pgvector(url)
    with SQLStore(url) as store:
        store.migrate()
        store.vectors.put(ADA, "m", [("a", unit([1, 0])), ("nan", unit([1, 0])), ("text", unit([1, 0]))])
        run(url, r"UPDATE agent_documents SET content = '\x0000c07f0000803f' WHERE place LIKE '%nan'")
        run(url, "UPDATE agent_documents SET content = NULL, text = '1' WHERE place LIKE '%text'")
        run(url, "DELETE FROM agent_vectors")
        assert [key for key, _ in store.vectors.nearest(ADA, "m", unit([1, 0]), 9)] == ["a"]


def test_it_leads_down_and_up_again(url: str) -> None:
    make_pgvector(url)
    with SQLStore(url) as store:
        store.migrate()
        assert "agent_vectors" in tables(url)
        store.migrate("0005")
        assert not {"agent_vectors", "agent_documents"} & tables(url)
        store.migrate()
        assert "agent_vectors" in tables(url)
        store.migrate("base")
        assert tables(url) == set()


def test_the_script_looks_for_the_extension_itself(url: str) -> None:
    run(url, ddl(url, "head"))
    assert "agent_vectors" not in tables(url)
    run(url, ddl(url, "base"))
    make_pgvector(url)
    run(url, ddl(url, "0005"))
    assert "agent_vectors" not in tables(url)
    run(url, ddl(url, "0005:head"))
    assert "agent_vectors" in tables(url)
    run(url, ddl(url, "head:0005"))
    assert tables(url) & {"agent_vectors", "agent_documents"} == set()
    run(url, ddl(url, "0005:0007") + ddl(url, "base"))
    assert tables(url) == set()


def test_who_may_not_use_it_compares_documents(url: str) -> None:
    make_pgvector(url)
    with SQLStore(url) as store:
        store.migrate()
    run(url, "CREATE ROLE limited LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON agent_documents TO limited")
    with SQLStore(url.replace("postgres@", "limited@", 1)) as limited:
        limited.vectors.put(ADA, "m", [("a", unit([1, 0]))])
        assert type(limited.vectors) is DocumentVectors
        assert len(limited.vectors.nearest(ADA, "m", unit([1, 0]), 1)) == 1
    run(url, "DROP OWNED BY limited; DROP ROLE limited")
