"""The conversation of a session, which lasts across executions: a log of messages, and what sums up its beginning."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from agent_statestore.clock import from_us, to_us
from agent_statestore.documents.contract import MOST_OPERATIONS, DocumentStore
from agent_statestore.documents.errors import DocumentUnreadable
from agent_statestore.documents.holding import expect_no_holder
from agent_statestore.documents.log import DocumentLog, LogEntry, number_of
from agent_statestore.documents.places import Namespace, safe_part
from agent_statestore.documents.query import DocumentQuery
from agent_statestore.documents.records import Document, Operation, Put, Remove
from agent_statestore.envelope import DAMAGE, reason_of_damage
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue, require_name

SESSIONS: Final = "session"

_MESSAGES: Final = "messages"
_SUMMARY: Final = "summary"
# The names of a message's metadata: the execution that said it, and which of its messages it is, from 1.
_EXECUTION: Final = "execution"
_PLACE: Final = "n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMessage:
    """One message of a session.

    Attributes:
        number: its place in the session, from 1; 0 while it is not stored yet.
        role: who said it: "user", "assistant", or any other text.
        content: what was said.
        metadata: whatever was given with it.
        timestamp: when it was said.
        execution_id: the execution in which it was said.
    """

    number: int
    role: str
    content: JSONValue
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    timestamp: datetime
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What stands for the messages up to number `up_to`."""

    up_to: int
    content: JSONValue


class Session:
    """The conversation of one session.

    `is_active` says whether an execution is not over. What changes the conversation from outside of its executions
    raises `NamespaceHeld` while an execution holds the session.
    """

    def __init__(self, documents: DocumentStore, session_id: str, is_active: Callable[[str], bool]) -> None:
        require_name("session_id", session_id)
        self.session_id = session_id
        self._documents = documents
        self._namespace = namespace_of(session_id)
        self._log = DocumentLog(documents, (*self._namespace, _MESSAGES))
        self._is_active = is_active

    # -- reading -------------------------------------------------------------------------------------------------------

    def messages(self, after: int = 0, *, up_to: int | None = None) -> Iterator[SessionMessage]:
        """Yield the messages behind number `after`, in order, up to and with number `up_to`."""
        return map(message_of, self._log.read(after, up_to=up_to))

    def last(self, count: int) -> tuple[SessionMessage, ...]:
        """Return the last messages, at most `count`, in order."""
        return tuple(map(message_of, self._log.last(count)))

    def length(self) -> int:
        """Return the number of the last message; 0 without one."""
        return self._log.length()

    def summary(self) -> Summary | None:
        """Return what stands for the beginning of the conversation, if anything does."""
        document = self._documents.get(self._namespace, _SUMMARY)
        if document is None:
            return None
        return Summary(up_to=document.version, content=document.value)

    def last_of(self, execution_id: str) -> int:
        """Return how many messages of an execution the session has."""
        query = DocumentQuery(
            namespace=(*self._namespace, _MESSAGES),
            where={_EXECUTION: execution_id},
            newest_first=True,
            limit=1,
            values=False,
        )
        found = self._documents.list(query).items
        return int(found[0].metadata[_PLACE]) if found else 0

    # -- writing -------------------------------------------------------------------------------------------------------

    def appending(self, messages: Iterable[SessionMessage], *, first: int, at: int) -> list[Operation]:
        """Return the operations that append an execution's messages behind number `at`.

        `first` says which message of its execution the first one is, from 1.
        """
        entries = [
            LogEntry(
                value={
                    "role": message.role,
                    "content": message.content,
                    "metadata": dict(message.metadata),
                    "at": to_us(message.timestamp),
                },
                metadata={_EXECUTION: message.execution_id, _PLACE: place},
            )
            for place, message in enumerate(messages, first)
        ]
        return self._log.appending(entries, at=at)

    def summarising(self, summary: Summary) -> list[Operation]:
        """Return the operation that stores a summary, unless one that reaches as far is stored."""
        return [Put(namespace=self._namespace, key=_SUMMARY, value=summary.content, version=summary.up_to)]

    def summarise(self, content: JSONValue, *, up_to: int | None = None) -> None:
        """Let `content` stand for the messages up to number `up_to`, by default all that there are.

        They stay readable. Executions then begin with the summary and the messages behind it. A summary that reaches
        farther stays. Raise `NamespaceHeld`, and `InvalidRecord` for a number that no message has.
        """
        length = self.length()
        up_to = length if up_to is None else up_to
        if not 0 < up_to <= length:
            raise InvalidRecord("up_to", f"needs the number of a message, from 1 to {length}, not {up_to!r:.80}")
        expected = expect_no_holder(self._documents, self._namespace, self._is_active)
        self._documents.write([expected, *self.summarising(Summary(up_to=up_to, content=content))])

    def rewind(self, to: int) -> int:
        """Remove the messages behind number `to`, and a summary that reaches farther; return how many messages went.

        Raise `NamespaceHeld`, and `InvalidRecord` for a negative number.
        """
        if isinstance(to, bool) or not isinstance(to, int) or to < 0:
            raise InvalidRecord("to", f"needs the number of a message, or 0, not {to!r:.80}")
        length, removed = self.length(), 0
        summary = self.summary()
        if summary is not None and summary.up_to > to:
            self._write_from_outside([Remove(namespace=self._namespace, key=_SUMMARY)])
        while length > to:
            first = max(to, length - _AT_ONCE) + 1
            self._write_from_outside(self._log.removing(first, length))
            removed += length - first + 1
            length = first - 1
        return removed

    def truncate(self, keep: int) -> int:
        """Remove all messages but the last `keep`; return how many went. The numbers of the others stay.

        A summary stays as well. Raise `NamespaceHeld`, and `InvalidRecord` for a number below 1.
        """
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise InvalidRecord("keep", f"needs a whole number of at least 1, not {keep!r:.80}")
        last, removed = self.length() - keep, 0
        query = DocumentQuery(namespace=(*self._namespace, _MESSAGES), limit=_AT_ONCE, values=False)
        while True:
            numbers = [number for each in self._documents.list(query).items if (number := number_of(each)) <= last]
            if not numbers:
                return removed
            self._write_from_outside(self._log.removing(numbers[0], numbers[-1]))
            removed += len(numbers)

    def fork(self, session_id: str) -> "Session":
        """Copy the conversation to a session that has none, and return that one.

        Raise `InvalidRecord` if the other session has messages. It is harmless to repeat after a crash in the middle,
        which leaves a beginning there.
        """
        forked = Session(self._documents, session_id, self._is_active)
        if forked.length() > self.length() or session_id == self.session_id:
            raise InvalidRecord("session_id", f"the session {session_id!r:.80} has messages of its own")
        self._documents.copy_under((*self._namespace, _MESSAGES), (*forked._namespace, _MESSAGES))
        summary = self.summary()
        if summary is not None:
            self._documents.write(forked.summarising(summary))
        return forked

    def erase(self) -> int:
        """Remove all that is stored under the session; return how many documents there were."""
        return self._documents.remove_under(self._namespace)

    def _write_from_outside(self, operations: Sequence[Operation]) -> None:
        self._documents.write([expect_no_holder(self._documents, self._namespace, self._is_active), *operations])


_AT_ONCE: Final = MOST_OPERATIONS - 1


def namespace_of(session_id: str) -> Namespace:
    """Return the namespace under which all of a session stands."""
    return (SESSIONS, safe_part(session_id))


def message_of(entry: Document) -> SessionMessage:
    """Return the message that an entry of the log holds. Raise `DocumentUnreadable`."""
    if entry.unreadable is not None:
        raise DocumentUnreadable(entry.namespace, entry.key, entry.unreadable)
    said: Any = entry.value
    try:
        return SessionMessage(
            number=number_of(entry),
            role=said["role"],
            content=said["content"],
            metadata=said["metadata"],
            timestamp=from_us(said["at"]),
            execution_id=str(entry.metadata[_EXECUTION]),
        )
    except DAMAGE as error:
        raise DocumentUnreadable(entry.namespace, entry.key, reason_of_damage(error)) from error
