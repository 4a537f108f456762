"""Documents: what stands where, who may write it, and what survives a repetition."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import pytest

from agent_statestore.clock import ManualClock
from agent_statestore.documents import (
    MOST_OPERATIONS,
    Document,
    DocumentPlace,
    DocumentQuery,
    DocumentStore,
    Expect,
    Operation,
    Put,
    Remove,
)
from agent_statestore.documents.codec import MOST_METADATA_BYTES
from agent_statestore.documents.errors import DocumentConflict
from agent_statestore.documents.log import DocumentLog, LogEntry
from agent_statestore.documents.places import MOST_CHARACTERS, place_text
from agent_statestore.documents.records import MOST_VERSION
from agent_statestore.errors import InvalidRecord, NotSerialisable, ValueTooLarge
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import INSTANT, create
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import all_succeeded, raised, succeeded, together

NS = ("session", "s-1")
OTHER = ("session", "s-2")
THREADS = 6
ROUNDS = 3

# In their order.
NAMESPACES = (
    ("a",),
    ("a", "b"),
    ("a", "b", "c"),
    ("a", "b c"),
    ("a", "b%"),
    ("a", "b_"),
    ("a", "bb"),
    ("a b",),
    ("aa", "b"),
    ("ä", "😀"),
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    1.5,
    "",
    "é\n\x1f\x01 ' \" \\ %",
    [],
    {"a": [1, {"b": None}]},
    b"",
    bytes(range(256)),
)


def values_of(documents: DocumentStore, **query: Any) -> list[Any]:
    return [each.value for each in documents.list(DocumentQuery(**query)).items]


def keys_of(documents: DocumentStore, **query: Any) -> list[str]:
    return [each.key for each in documents.list(DocumentQuery(**query)).items]


def found(documents: DocumentStore, namespace: tuple[str, ...], key: str) -> Document:
    document = documents.get(namespace, key)
    assert document is not None
    return document


def places_by_pages(documents: DocumentStore, limit: int, **query: Any) -> list[DocumentPlace]:
    """Return the places of all pages, each of which but the last must be full."""
    places, cursor = [], None
    while True:
        page = documents.list(DocumentQuery(limit=limit, cursor=cursor, **query))
        places += [item.place for item in page.items]
        assert len(page.items) == limit or page.next_cursor is None
        cursor = page.next_cursor
        if cursor is None:
            return places


class DocumentConformance(Suite):
    """`Store.documents`."""

    # -- one document --------------------------------------------------------------------------------------------------

    def test_a_document_comes_back_as_it_was_put(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        for number, value in enumerate(VALUES):
            version = documents.put(NS, f"k{number}", value, metadata={"n": number, "x": {"b": 1, "a": [None]}})
            document = found(documents, NS, f"k{number}")
            assert document == Document(
                namespace=NS,
                key=f"k{number}",
                value=value,
                metadata={"n": number, "x": {"a": [None], "b": 1}},
                version=version,
                created_at=store.now(),
                updated_at=store.now(),
            )
            assert type(document.value) is type(value)
        clock.advance(INSTANT)
        assert values_of(documents, namespace=NS) == list(VALUES)

    def test_a_document_is_replaced_as_a_whole(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        created = store.now()
        first = documents.put(NS, "k", {"a": 1}, metadata={"m": 1}, ttl=timedelta(hours=1))
        clock.advance(INSTANT)
        second = documents.put(NS, "k", b"bytes")
        assert second > first
        assert found(documents, NS, "k") == Document(
            namespace=NS, key="k", value=b"bytes", version=second, created_at=created, updated_at=store.now()
        )

    def test_versions_grow_also_in_one_instant_and_across_a_removal(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        seen = []
        for _ in range(3):
            seen += [documents.put(NS, "k", 1), documents.put(NS, "k", 2)]
            documents.remove(NS, "k")
            assert documents.get(NS, "k") is None
            clock.advance(timedelta(seconds=1))
        assert seen == sorted(set(seen))

    def test_what_is_not_there_is_none(self, store: Store) -> None:
        documents = store.documents
        documents.put(NS, "b", 1)
        assert documents.get_many([(NS, "a"), (NS, "b"), (OTHER, "b"), (("x",), "b")])[0::2] == (None, None)
        assert documents.get(OTHER, "b") is None
        assert documents.get((*NS, "below"), "b") is None
        assert documents.get_many([]) == ()
        documents.remove(NS, "a")

    def test_many_are_read_in_the_order_of_the_question(self, store: Store) -> None:
        documents = store.documents
        for number in range(5):
            documents.put(("n", str(number)), "k", number)
        places = [(("n", str(number)), "k") for number in (3, 9, 0, 3)]
        assert [each and each.value for each in documents.get_many(places)] == [3, None, 0, 3]

    def test_any_names_do(self, store: Store) -> None:
        documents = store.documents
        names = (
            "x",
            "X",
            "x ",
            " x",
            "\u00e9",
            "e\u0301",
            "😀",
            "a:b",
            "a/b",
            "%",
            "_",
            "*",
            "{tag}",
            "\\",
            "'",
            "y" * 300,
        )
        for name in names:
            documents.put(("n", name), name, name)
        for name in names:
            assert found(documents, ("n", name), name).value == name, name
            assert keys_of(documents, namespace=("n", name)) == [name], name
        assert documents.remove_under(("n",)) == len(names)

    def test_the_longest_names_do(self, store: Store) -> None:
        documents = store.documents
        # Characters of four bytes that repeat nothing, as a database may compress what it puts into an index.
        alphabet = [chr(code) for code in range(0x10000, 0x1F000)]
        namespace = ("n", "".join(Random(7).sample(alphabet, MOST_CHARACTERS - 11)))
        for key in ("1234567", "123456\u00e9"):
            assert len(place_text(DocumentPlace(namespace, key))) == MOST_CHARACTERS
            documents.put(namespace, key, key)
            assert found(documents, namespace, key).value == key
            with pytest.raises(InvalidRecord):
                documents.put(namespace, f"{key}8", key)
        assert keys_of(documents, namespace=namespace) == ["1234567", "123456\u00e9"]

    def test_what_is_no_place_is_refused(self, store: Store) -> None:
        documents = store.documents
        wrong: tuple[tuple[Any, Any], ...] = (
            ((), "k"),
            (("a", ""), "k"),
            (NS, ""),
            ("text", "k"),
            (("a", 1), "k"),
            (NS, 1),
            (("a\x1f",), "k"),
            (NS, "a\nb"),
            (NS, "a\0b"),
            (NS, "\ud800"),
            (NS, "k" * 700),
            (None, "k"),
        )
        for namespace, key in wrong:
            for call in (
                partial(documents.get, namespace, key),
                partial(documents.put, namespace, key, 1),
                partial(documents.remove, namespace, key),
            ):
                with pytest.raises(InvalidRecord):
                    call()
        assert documents.list(DocumentQuery(namespace=(), below=True)).items == ()

    def test_what_is_no_value_is_refused_before_anything_is_written(self, store: Store) -> None:
        documents = store.documents
        documents.max_document_bytes = 1000
        wrong: tuple[tuple[Any, dict[str, Any], type[Exception]], ...] = (
            (object(), {}, NotSerialisable),
            (float("nan"), {}, NotSerialisable),
            ("\ud800", {}, NotSerialisable),
            ("x" * 1000, {}, ValueTooLarge),
            (b"x" * 1001, {}, ValueTooLarge),
            (1, {"metadata": {"a": object()}}, NotSerialisable),
            (1, {"metadata": {1: 1}}, InvalidRecord),
            (1, {"metadata": {"a": "x" * MOST_METADATA_BYTES}}, ValueTooLarge),
            (1, {"ttl": timedelta(0)}, InvalidRecord),
            (1, {"if_version": -1}, InvalidRecord),
            (1, {"if_version": True}, InvalidRecord),
            (1, {"version": 0}, InvalidRecord),
            (1, {"version": MOST_VERSION + 1}, InvalidRecord),
            (1, {"version": 3, "if_version": 3}, InvalidRecord),
            (1, {"keep": True, "if_version": 0}, InvalidRecord),
            (1, {"keep": True, "version": 1}, InvalidRecord),
        )
        for value, options, error in wrong:
            with pytest.raises(error):
                documents.write(
                    [Put(namespace=NS, key="a", value=1), Put(namespace=NS, key="b", value=value, **options)]
                )
        assert keys_of(documents, namespace=NS) == []
        documents.put(NS, "a", b"x" * 1000)
        documents.put(NS, "b", 1, version=MOST_VERSION)
        assert found(documents, NS, "b").version == MOST_VERSION

    # -- conditions ----------------------------------------------------------------------------------------------------

    def test_a_version_that_is_expected_must_be_there(self, store: Store) -> None:
        documents = store.documents
        with pytest.raises(DocumentConflict) as refused:
            documents.put(NS, "k", 1, if_version=7)
        assert (refused.value.namespace, refused.value.key) == (NS, "k")
        assert (refused.value.expected, refused.value.found) == (7, 0)
        first = documents.put(NS, "k", 1, if_version=0)
        with pytest.raises(DocumentConflict):
            documents.put(NS, "k", 2, if_version=0)
        with pytest.raises(DocumentConflict):
            documents.remove(NS, "k", if_version=first + 1)
        second = documents.put(NS, "k", 2, if_version=first)
        with pytest.raises(DocumentConflict) as refused:
            documents.put(NS, "k", 3, if_version=first)
        assert refused.value.found == second
        assert found(documents, NS, "k").value == 2
        documents.remove(NS, "k", if_version=second)
        documents.remove(NS, "k", if_version=second)
        assert documents.get(NS, "k") is None

    def test_the_first_is_kept(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        first = documents.put(NS, "k", 1, metadata={"a": 1}, keep=True)
        clock.advance(INSTANT)
        assert documents.put(NS, "k", 2, keep=True) == first
        assert (found(documents, NS, "k").value, found(documents, NS, "k").metadata) == (1, {"a": 1})

    def test_writes_with_versions_come_in_any_order(self, store: Store) -> None:
        documents = store.documents
        for version in (2, 5, 3, 5, 1):
            documents.put(NS, "k", version, version=version)
        assert (found(documents, NS, "k").value, found(documents, NS, "k").version) == (5, 5)
        assert documents.put(NS, "k", "next") > 5
        assert documents.put(NS, "k", "old", version=6) > 6
        assert found(documents, NS, "k").value == "next"
        assert documents.put(NS, "log", 1, if_version=0, version=1) == 1
        assert documents.put(NS, "log", 2, if_version=1, version=9) == 9

    # -- several at once -----------------------------------------------------------------------------------------------

    def test_a_write_happens_as_a_whole_or_not_at_all(self, store: Store) -> None:
        documents = store.documents
        version = documents.put(NS, "there", 1)
        documents.put(NS, "gone", 1)
        below = (*NS, "below")
        before = documents.list(DocumentQuery(namespace=NS, below=True))
        good: list[Operation] = [
            Put(namespace=NS, key="new", value=1),
            Put(namespace=below, key="new", value=2),
            Remove(namespace=NS, key="gone"),
            Put(namespace=NS, key="kept", value=1, keep=True),
        ]
        for bad in (
            Expect(namespace=NS, key="there", version=0),
            Expect(namespace=NS, key="there", version=version + 1),
            Expect(namespace=below, key="absent", version=3),
            Put(namespace=NS, key="there", value=2, if_version=0),
            Remove(namespace=NS, key="there", if_version=1),
        ):
            for operations in ([*good, bad], [bad, *good]):
                with pytest.raises(DocumentConflict) as refused:
                    documents.write(operations)
                assert refused.value.key == bad.key
                assert documents.list(DocumentQuery(namespace=NS, below=True)) == before, bad
        written = documents.write(
            [
                *good,
                Expect(namespace=NS, key="there", version=version),
                Expect(namespace=NS, key="absent", version=0),
            ]
        )
        assert written.versions[2:] == (0, found(documents, NS, "kept").version, version, 0)
        assert written.versions[1] == found(documents, below, "new").version
        assert keys_of(documents, namespace=NS, below=True) == ["kept", "new", "there", "new"]

    def test_a_write_that_is_repeated_has_no_effect(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        guard = documents.put(NS, "guard", 1)
        operations: list[Operation] = [
            Expect(namespace=NS, key="guard", version=guard),
            Put(namespace=NS, key="a", value=1, if_version=0),
            Put(namespace=NS, key="b", value=1),
            Remove(namespace=NS, key="c"),
        ]
        written = documents.write(operations, write_id="w-1")
        assert not written.was_applied
        # What came since is left alone, also where it stands in the way of the write.
        clock.advance(INSTANT)
        documents.put(NS, "guard", 2)
        documents.put(NS, "c", 3)
        later = documents.put(NS, "b", 2)
        again = documents.write(operations, write_id="w-1")
        assert again.was_applied
        assert again.versions[1:3] == (written.versions[1], later)
        assert values_of(documents, namespace=NS) == [1, 2, 3, 2]
        with pytest.raises(DocumentConflict):
            documents.write(operations, write_id="w-2")

    def test_what_is_no_write_is_refused(self, store: Store) -> None:
        documents = store.documents
        put = partial(Put, value=1)
        wrong: tuple[tuple[Sequence[Any], str | None], ...] = (
            ([], None),
            ([put(namespace=NS, key="a"), Remove(namespace=NS, key="a")], None),
            ([put(namespace=NS, key="a"), put(namespace=OTHER, key="a")], None),
            ([put(namespace=NS, key="a"), put(namespace=("session",), key="a")], None),
            ([put(namespace=NS, key=str(number)) for number in range(MOST_OPERATIONS + 1)], None),
            ([put(namespace=NS, key="a")], ""),
            ([put(namespace=NS, key="a")], "w" * 256),
        )
        for operations, write_id in wrong:
            with pytest.raises(InvalidRecord):
                documents.write(operations, write_id=write_id)
        assert documents.list(DocumentQuery(namespace=(), below=True)).items == ()

    def test_many_are_written_at_once(self, store: Store) -> None:
        documents = store.documents
        operations = [Put(namespace=NS, key=f"{number:04}", value=number) for number in range(MOST_OPERATIONS)]
        documents.write(operations)
        assert values_of(documents, namespace=NS, limit=2 * MOST_OPERATIONS) == list(range(MOST_OPERATIONS))

    # -- lists ---------------------------------------------------------------------------------------------------------

    def test_lists_have_the_order_of_namespaces_and_keys(self, store: Store) -> None:
        documents = store.documents
        for namespace in reversed(NAMESPACES):
            for key in ("~", "B", "a", "é"):
                documents.put(namespace, key, key)
        everything = [DocumentPlace(namespace, key) for namespace in NAMESPACES for key in ("B", "a", "~", "é")]
        assert places_by_pages(documents, 1000, namespace=(), below=True) == everything
        assert places_by_pages(documents, 7, namespace=(), below=True) == everything
        assert places_by_pages(documents, 7, namespace=(), below=True, newest_first=True) == everything[::-1]
        for namespace in (*NAMESPACES, ("x",)):
            inside = [place for place in everything if place.namespace == namespace]
            under = [place for place in everything if place.namespace[: len(namespace)] == namespace]
            for newest_first in (False, True):
                direction = -1 if newest_first else 1
                ask = partial(places_by_pages, documents, 3, namespace=namespace, newest_first=newest_first)
                assert ask() == inside[::direction], namespace
                assert ask(below=True) == under[::direction], namespace

    def test_keys_have_bounds(self, store: Store) -> None:
        documents = store.documents
        for number in range(1, 6):
            documents.put(NS, str(number), number)
            documents.put((*NS, "below"), str(number), -number)
        for options, expected in (
            ({"after": "2"}, [3, 4, 5]),
            ({"before": "3"}, [1, 2]),
            ({"after": "1", "before": "4"}, [2, 3]),
            ({"after": "2x", "before": "4"}, [3]),
            ({"after": "9"}, []),
            ({"before": "4", "newest_first": True, "limit": 2}, [3, 2]),
            ({"after": "2", "newest_first": True}, [5, 4, 3]),
            ({"after": "4", "before": "2"}, []),
        ):
            assert values_of(documents, namespace=NS, **options) == expected, options
        assert places_by_pages(documents, 1, namespace=NS, after="1", before="5", newest_first=True) == [
            DocumentPlace(NS, key) for key in ("4", "3", "2")
        ]
        with pytest.raises(InvalidRecord):
            DocumentQuery(namespace=NS, below=True, after="1")

    def test_a_list_finds_by_metadata(self, store: Store) -> None:
        documents = store.documents
        rows: tuple[dict[str, Any], ...] = (
            {"a": 1, "b": "x"},
            {"a": True, "b": "x"},
            {"a": "1"},
            {"a": 1.0},
            {"a": None, "b": 'x","a":1'},
            {"a": {"p": 1, "q": [2]}},
            {"aa": 1},
            {},
            {"a\n": "l\n1%_"},
        )
        for number, metadata in enumerate(rows):
            documents.put(NS, str(number), number, metadata=metadata)
        for where, expected in (
            ({}, list(range(len(rows)))),
            ({"a": 1}, [0]),
            ({"a": True}, [1]),
            ({"a": "1"}, [2]),
            ({"a": 1.0}, [3]),
            ({"a": None}, [4]),
            ({"a": {"q": [2], "p": 1}}, [5]),
            ({"b": "x"}, [0, 1]),
            ({"b": "x", "a": 1}, [0]),
            ({"a\n": "l\n1%_"}, [8]),
            ({"a\n": "l\n1%"}, []),
            ({"c": 1}, []),
        ):
            assert values_of(documents, namespace=NS, where=where) == expected, where
        assert places_by_pages(documents, 1, namespace=NS, where={"b": "x"}) == [
            DocumentPlace(NS, "0"),
            DocumentPlace(NS, "1"),
        ]
        assert values_of(documents, namespace=NS, where={"b": "x"}, newest_first=True, limit=1) == [1]

    def test_a_list_may_leave_out_the_values(self, store: Store) -> None:
        documents = store.documents
        documents.put(NS, "a", {"big": 1}, metadata={"m": 1})
        documents.put(NS, "b", b"big")
        listed = documents.list(DocumentQuery(namespace=NS, values=False)).items
        whole = documents.list(DocumentQuery(namespace=NS)).items
        assert listed == tuple(replace(each, value=None) for each in whole)

    def test_a_cursor_that_no_page_gave_is_refused(self, store: Store) -> None:
        for cursor in ("x", "é", "AA", "YQ"):
            with pytest.raises(InvalidRecord):
                store.documents.list(DocumentQuery(namespace=NS, cursor=cursor))

    def test_namespaces_are_listed(self, store: Store) -> None:
        documents = store.documents
        for namespace in NAMESPACES:
            documents.put(namespace, "1", 1)
            documents.put(namespace, "2", 1)
        assert documents.namespaces() == NAMESPACES
        assert documents.namespaces(("a",)) == NAMESPACES[:7]
        assert documents.namespaces(("a", "b")) == NAMESPACES[1:3]
        assert documents.namespaces(limit=2) == NAMESPACES[:2]
        assert documents.namespaces(("a",), limit=2, after=NAMESPACES[1]) == NAMESPACES[2:4]
        assert documents.namespaces(("x",)) == ()

    # -- removing, copying, expiring -----------------------------------------------------------------------------------

    def test_a_namespace_is_removed_with_all_below_it_and_nothing_else(self, store: Store) -> None:
        documents = store.documents
        for namespace in NAMESPACES:
            documents.put(namespace, "1", 1)
            documents.put(namespace, "2", 1)
        assert documents.remove_under(("a", "b")) == 4
        assert documents.namespaces() == (NAMESPACES[0], *NAMESPACES[3:])
        assert documents.remove_under(("a", "b")) == 0
        assert documents.remove_under(("a",)) == 10
        assert documents.namespaces() == NAMESPACES[7:]
        with pytest.raises(InvalidRecord):
            documents.remove_under(())

    def test_a_namespace_is_copied_once(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        for number in range(120):
            documents.put(NS, f"{number:03}", number, metadata={"n": number})
        documents.put((*NS, "below"), "k", b"b", ttl=timedelta(hours=1))
        clock.advance(INSTANT)
        target = ("thread", "t", "x")
        newer = documents.put(target, "001", "newer")
        for _ in range(2):
            assert documents.copy_under(NS, target) == 121
            copies = documents.list(DocumentQuery(namespace=target, limit=200)).items
            assert [each.value for each in copies] == [0, "newer", *range(2, 120)]
            assert copies[1].version == newer
            original = found(documents, NS, "002")
            assert (copies[2].version, copies[2].metadata) == (original.version, {"n": 2})
            assert found(documents, (*target, "below"), "k").expires_at is not None
        assert len(documents.list(DocumentQuery(namespace=NS, limit=200)).items) == 120
        for source, into in ((NS, NS), (NS, (*NS, "below")), ((*NS, "below"), NS)):
            with pytest.raises(InvalidRecord):
                documents.copy_under(source, into)

    def test_a_document_is_gone_when_its_time_is_over(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        ttl = timedelta(minutes=10)
        short = documents.put(NS, "short", 1, ttl=ttl)
        documents.put(NS, "long", 1, ttl=2 * ttl)
        documents.put(NS, "ever", 1)
        documents.put(NS, "renewed", 1, ttl=ttl)
        documents.put(NS, "renewed", 1)
        assert found(documents, NS, "short").expires_at == store.now() + ttl
        clock.advance(ttl - INSTANT)
        assert keys_of(documents, namespace=NS) == ["ever", "long", "renewed", "short"]
        clock.advance(INSTANT)
        assert documents.get(NS, "short") is None
        assert keys_of(documents, namespace=NS) == ["ever", "long", "renewed"]
        with pytest.raises(DocumentConflict):
            documents.put(NS, "short", 2, if_version=short)
        assert store.tidy() >= 1
        assert documents.tidy() == 0
        assert keys_of(documents, namespace=NS) == ["ever", "long", "renewed"]
        again = documents.put(NS, "short", 2, if_version=0)
        assert again > short
        assert documents.remove_under(NS) == 4

    def test_an_expired_document_is_replaced_as_if_it_were_not_there(self, store: Store, clock: ManualClock) -> None:
        documents = store.documents
        documents.write([Put(namespace=NS, key="k", value=1, ttl=INSTANT)], write_id="w")
        clock.advance(timedelta(seconds=1))
        documents.write([Put(namespace=NS, key="k", value=2, keep=True)], write_id="w")
        document = found(documents, NS, "k")
        assert (document.value, document.created_at, document.expires_at) == (2, store.now(), None)

    def test_clear_removes_documents_and_counts_executions(self, store: Store) -> None:
        create(store)
        for namespace in NAMESPACES:
            store.documents.put(namespace, "k", 1)
        assert store.clear() == 1
        assert store.documents.list(DocumentQuery(namespace=(), below=True)).items == ()

    # -- logs ----------------------------------------------------------------------------------------------------------

    def test_a_log_grows_at_its_end_only(self, store: Store) -> None:
        log = DocumentLog(store.documents, NS)
        assert log.length() == 0
        assert log.append([LogEntry(value=number) for number in range(12)], at=0) == 12
        for wrong in (0, 11, 13, 99):
            with pytest.raises(DocumentConflict):
                log.append([LogEntry(value="x")], at=wrong)
        assert log.append([LogEntry(value=b"12", metadata={"a": 1})], at=12) == 13
        assert [entry.value for entry in log.read()] == [*range(12), b"12"]
        assert [entry.value for entry in log.read(after=11)] == [11, b"12"]
        assert [entry.value for entry in log.last(2)] == [11, b"12"]
        assert log.length() == 13
        # Its beginning may go, and its end.
        store.documents.write([*log.removing(1, 3), *log.removing(13, 13)])
        assert [entry.value for entry in log.read()] == list(range(3, 12))
        assert log.append([LogEntry(value="new")], at=12) == 13
        assert log.append([], at=5) == 5

    def test_an_append_that_is_repeated_adds_nothing(self, store: Store) -> None:
        log = DocumentLog(store.documents, NS)
        for at in (0, 2):
            for _ in range(2):
                log.append([LogEntry(value=at), LogEntry(value=at + 1)], at=at, write_id=f"w-{at}")
        log.append([LogEntry(value=0), LogEntry(value=1)], at=0, write_id="w-0")
        assert [entry.value for entry in log.read()] == [0, 1, 2, 3]

    # -- races ---------------------------------------------------------------------------------------------------------

    def test_one_of_several_writers_gets_a_version(self, store: Store) -> None:
        documents = store.documents
        for number in range(ROUNDS):
            version = 0
            for _ in range(2):
                calls = [
                    partial(documents.put, NS, f"k{number}", writer, if_version=version) for writer in range(THREADS)
                ]
                outcomes = together(*calls)
                assert raised(outcomes) == [DocumentConflict] * (THREADS - 1), outcomes
                (version,) = succeeded(outcomes)

    def test_one_of_several_first_ones_is_kept(self, store: Store) -> None:
        documents = store.documents
        for number in range(ROUNDS):
            calls = [partial(documents.put, NS, f"k{number}", writer, keep=True) for writer in range(THREADS)]
            assert len(set(all_succeeded(together(*calls)))) == 1

    def test_writers_of_several_documents_do_not_mix(self, store: Store) -> None:
        """Each writes all documents; whoever comes last, all have its value. They come in any order."""
        documents = store.documents
        keys = [f"k{number}" for number in range(5)]

        def write(writer: int) -> None:
            order = keys if writer % 2 else keys[::-1]
            documents.write([Put(namespace=NS, key=key, value=writer) for key in order])

        for _ in range(ROUNDS):
            all_succeeded(together(*(partial(write, writer) for writer in range(THREADS))))
            assert len(set(values_of(documents, namespace=NS))) == 1

    def test_what_a_write_expects_elsewhere_in_its_root_holds(self, store: Store) -> None:
        """Of two that each make one document if the other is not there, one is refused."""
        documents = store.documents

        def make(mine: str, other: str) -> None:
            documents.write([Expect(namespace=NS, key=other, version=0), Put(namespace=NS, key=mine, value=1)])

        for number in range(3 * ROUNDS):
            names = f"a{number}", f"b{number}"
            outcomes = together(*(partial(make, *names[::direction]) for direction in (1, -1)))
            assert raised(outcomes) == [DocumentConflict], outcomes

    def test_what_was_removed_with_its_namespace_does_not_come_back(self, store: Store) -> None:
        documents = store.documents

        def go_on(version: int) -> int:
            for count in range(1000):
                try:
                    version = documents.put(NS, "k", count, if_version=version)
                except DocumentConflict as refused:
                    return refused.found
            return version

        for below in (NS, NS[:1]) * ROUNDS:
            version = documents.put(NS, "k", 0)
            removed = partial(documents.remove_under, below)
            assert all_succeeded(together(partial(go_on, version), removed)) == [0, 1]
            assert documents.get(NS, "k") is None

    def test_writers_of_one_log_leave_no_gap(self, store: Store) -> None:
        log = DocumentLog(store.documents, NS)

        def append(writer: int) -> None:
            while True:
                try:
                    log.append([LogEntry(value=writer), LogEntry(value=writer)], at=log.length())
                except DocumentConflict:
                    continue
                return

        all_succeeded(together(*(partial(append, writer) for writer in range(THREADS))))
        values = [entry.value for entry in log.read()]
        assert sorted(values) == sorted([*range(THREADS)] * 2)
        assert values[::2] == values[1::2]
        assert [entry.version for entry in log.read()] == list(range(1, 2 * THREADS + 1))
