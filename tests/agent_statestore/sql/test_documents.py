"""Documents in databases: what only the database's own means can damage, fill, or hold up."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_statestore import FormatTooNew, ManualClock
from agent_statestore.documents import DocumentQuery, Expect, Operation, Put
from agent_statestore.documents.codec import encode_operation
from agent_statestore.documents.errors import DocumentConflict, DocumentUnreadable
from agent_statestore.envelope import FORMAT
from agent_statestore.sql import SQLStore
from agent_statestore.sql.engine import create_step_engine
from tests.agent_statestore.damaging import NO_JSON

NS = ("session", "s-1")


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/documents.db"
    name = "postgresql_migrated_url" if request.param == "postgresql" else "mariadb_database_url"
    found: str = request.getfixturevalue(name)
    return found


@pytest.fixture
def store(url: str, clock: ManualClock) -> Iterator[SQLStore]:
    with SQLStore(url, clock=clock) as store:
        store.migrate()
        yield store


def change(store: SQLStore, what: str, key: str) -> None:
    """Change a row past the store."""
    assert store._database.change(f"UPDATE agent_documents SET {what} WHERE place LIKE :key", {"key": f"%{key}"})


def test_a_damaged_document_is_unreadable_alone(store: SQLStore) -> None:
    documents = store.documents
    damages = {
        "no json": f"text = '{NO_JSON}'",
        "no value": "text = NULL",
        "no metadata": f"metadata = '{NO_JSON}'",
        "too new": f"format = {FORMAT + 1}",
    }
    for key in (*damages, "good"):
        documents.put(NS, key, {"a": 1}, metadata={"m": 1})
    for key, what in damages.items():
        change(store, what, key)
    listed = {each.key: each for each in documents.list(DocumentQuery(namespace=NS)).items}
    assert {key for key, each in listed.items() if each.unreadable} == set(damages)
    assert listed["good"].value == {"a": 1}
    for key in damages:
        with pytest.raises(FormatTooNew if key == "too new" else DocumentUnreadable):
            documents.get(NS, key)
        assert listed[key].unreadable, key
    # It is replaced and removed like any other.
    for key in damages:
        documents.put(NS, key, key, if_version=listed[key].version)
    assert [each.unreadable for each in documents.list(DocumentQuery(namespace=NS)).items] == [None] * 5
    assert documents.remove_under(NS) == 5


@pytest.mark.full
def test_values_of_the_largest_size_fit(store: SQLStore) -> None:
    documents = store.documents
    size = documents.max_document_bytes
    values = {
        "bytes": bytes(range(256)) * (size // 256),
        "zeros": bytes(size),
        "quotes": ['"', "\\", "'\n"] * (size // 20),
        "text": "é😀" * (size // 6 - 1),
    }
    for key, value in values.items():
        documents.put(NS, key, value, metadata={"k": key})
        read = documents.get(NS, key)
        assert read is not None
        assert read.value == value, key
    assert len(documents.list(DocumentQuery(namespace=NS, values=False)).items) == len(values)


def test_documents_share_the_fate_of_a_callers_transaction(store: SQLStore) -> None:
    documents = store.documents
    engine = create_step_engine(store._settings)
    encoded = [encode_operation(Put(namespace=NS, key="k", value=b"\0", if_version=0), 100)]
    try:
        with engine.connect() as connection:
            with connection.begin() as undone:
                documents.apply_in(connection, encoded)
                undone.rollback()
            assert documents.get(NS, "k") is None
            with connection.begin():
                written = documents.apply_in(connection, encoded, "w")
            document = documents.get(NS, "k")
            assert document is not None
            assert (document.value, (document.version,)) == (b"\0", written.versions)
            with connection.begin():
                assert documents.apply_in(connection, encoded, "w").was_applied
                with pytest.raises(DocumentConflict):
                    documents.apply_in(connection, encoded, "v")
    finally:
        engine.dispose()


def test_a_root_is_locked_until_the_callers_transaction_ends(store: SQLStore, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("the file is locked as a whole")
    documents = store.documents
    engine = create_step_engine(store._settings)
    other: Operation = Expect(namespace=(*NS, "below"), key="k", version=0)
    expecting = [Expect(namespace=NS, key="k", version=0), Put(namespace=NS, key="mine", value=1)]
    is_waiting = threading.Event()

    def write() -> None:
        is_waiting.set()
        documents.write(expecting)

    try:
        with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
            with connection.begin():
                operations = [other, Put(namespace=NS, key="k", value=1)]
                documents.apply_in(connection, [encode_operation(operation, 100) for operation in operations])
                waiting = pool.submit(write)
                assert is_waiting.wait(10)
                documents.put(("another", "root"), "k", 1)
                assert documents.get(NS, "k") is None
                assert not waiting.done()
            with pytest.raises(DocumentConflict):
                waiting.result(10)
    finally:
        engine.dispose()
