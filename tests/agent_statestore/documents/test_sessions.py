"""The conversation of a session: what executions append, and what people do to it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from agent_statestore.documents.errors import DocumentUnreadable, NamespaceHeld
from agent_statestore.documents.sessions import Session, SessionMessage, Summary, namespace_of
from agent_statestore.errors import InvalidRecord
from agent_statestore.memory import MemoryStore
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import claimed

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store() -> Iterator[Store]:
    with MemoryStore() as store:
        yield store


def said(text: str, execution_id: str = "x-1") -> SessionMessage:
    return SessionMessage(
        number=0, role="user", content=text, metadata={"m": 1}, timestamp=AT, execution_id=execution_id
    )


def append(store: Store, session: Session, *texts: str, execution_id: str = "x-1", first: int = 1) -> None:
    for start in range(0, len(texts), 500):
        messages = [said(text, execution_id) for text in texts[start : start + 500]]
        store.documents.write(session.appending(messages, first=first + start, at=session.length()))


def texts(session: Session, after: int = 0) -> list[object]:
    return [message.content for message in session.messages(after)]


def test_messages_are_numbered_across_executions(store: Store) -> None:
    session = store.session("s\n%1")
    append(store, session, "a", "b")
    append(store, session, "c", execution_id="x-2")
    assert texts(session) == ["a", "b", "c"]
    assert texts(session, after=2) == ["c"]
    assert session.last(1)[0] == SessionMessage(
        number=3, role="user", content="c", metadata={"m": 1}, timestamp=AT, execution_id="x-2"
    )
    assert (session.last_of("x-1"), session.last_of("x-2"), session.last_of("x-3")) == (2, 1, 0)
    assert texts(store.session("s\n%")) == []


def test_a_summary_stands_for_the_beginning_and_never_goes_back(store: Store) -> None:
    session = store.session("s")
    append(store, session, "a", "b", "c")
    assert session.summary() is None
    session.summarise("a and b", up_to=2)
    session.summarise("a", up_to=1)
    assert session.summary() == Summary(up_to=2, content="a and b")
    session.summarise("all")
    assert session.summary() == Summary(up_to=3, content="all")
    assert texts(session) == ["a", "b", "c"]
    for wrong in (0, 4, -1):
        with pytest.raises(InvalidRecord):
            session.summarise("x", up_to=wrong)


def test_a_conversation_is_rewound(store: Store) -> None:
    session = store.session("s")
    append(store, session, *(str(number) for number in range(1, 2101)))
    session.summarise("all")
    assert session.rewind(50) == 2050
    assert session.summary() is None
    assert session.length() == 50
    append(store, session, "new", execution_id="x-2")
    assert texts(session, after=49) == ["50", "new"]
    assert session.rewind(100) == 0
    assert session.rewind(0) == 51
    assert texts(session) == []
    with pytest.raises(InvalidRecord):
        session.rewind(-1)


def test_the_beginning_is_cut_off_and_numbers_stay(store: Store) -> None:
    session = store.session("s")
    append(store, session, *(str(number) for number in range(1, 2101)))
    session.summarise("the first", up_to=2000)
    assert session.truncate(100) == 2000
    assert session.truncate(100) == 0
    assert [message.number for message in session.messages()] == list(range(2001, 2101))
    assert session.summary() == Summary(up_to=2000, content="the first")
    append(store, session, "new", execution_id="x-2")
    assert session.length() == 2101
    with pytest.raises(InvalidRecord):
        session.truncate(0)


def test_a_fork_goes_on_by_itself(store: Store) -> None:
    session = store.session("s")
    append(store, session, "a", "b")
    session.summarise("a", up_to=1)
    fork = session.fork("t")
    append(store, fork, "other", execution_id="x-2")
    append(store, session, "c")
    assert texts(fork) == ["a", "b", "other"]
    assert texts(session) == ["a", "b", "c"]
    assert fork.summary() == Summary(up_to=1, content="a")
    append(store, fork, "more", execution_id="x-2", first=2)
    for into in ("t", "s"):
        with pytest.raises(InvalidRecord):
            session.fork(into)


def test_nobody_changes_a_conversation_that_is_being_had(store: Store) -> None:
    session = store.session("s")
    append(store, session, "a", "b")
    execution_id, lease = claimed(store, session_id="s")
    store.hold_namespace(namespace_of("s"), lease)
    for change in (lambda: session.rewind(1), lambda: session.truncate(1), lambda: session.summarise("x")):
        with pytest.raises(NamespaceHeld):
            change()
    assert texts(session) == ["a", "b"]
    fork = session.fork("t")
    assert fork.rewind(1) == 1, "a fork has no holder"
    store.update_state(execution_id, AgentState.CANCELLED, lease=lease)
    assert session.rewind(1) == 1


def test_all_of_a_session_is_erased(store: Store) -> None:
    session, other = store.session("s"), store.session("s2")
    append(store, session, "a", "b")
    append(store, other, "a")
    session.summarise("x")
    assert session.erase() == 3
    assert (texts(session), session.summary(), texts(other)) == ([], None, ["a"])


def test_what_is_damaged_is_named(store: Store) -> None:
    session = store.session("s")
    append(store, session, "a")
    store.documents.put(
        (*namespace_of("s"), "messages"), "000000000002", {"no": "message"}, metadata={"execution": "x"}
    )
    with pytest.raises(DocumentUnreadable):
        texts(session)
