"""What an execution writes to documents: recorded with the checkpoint that it belongs to, and then done.

A store cannot always change an execution and documents in one step: on a Redis Cluster they lie on different servers,
and a hybrid keeps them in different stores. So a checkpoint carries what is to be written, in the working memory under
a key of the engine's, and it is written once the checkpoint is stored. After a crash between the two the next attempt
finds it there. Each entry is such that doing it twice changes nothing. Nothing is left open when an execution pauses or
ends: whoever sees that sees the documents, too.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.documents.errors import DocumentConflict, NamespaceHeld
from agent_statestore.documents.holding import Hold, take_hold
from agent_statestore.documents.records import Operation, Put
from agent_statestore.documents.sessions import Session, SessionMessage, Summary, namespace_of
from agent_statestore.envelope import OUTBOX_KEY, SESSION_MARK
from agent_statestore.errors import LeaseLost, StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentContext, JSONValue, Lease, Message
from agent_statestore.store import Store
from celery_agents.errors import SessionBusy

log = line_logger(__name__)

Entry = dict[str, JSONValue]

_AT_ONCE: Final = 500


# A dataclass, as every claim makes one, and few use it.
@dataclass(eq=False)
class Outgoing:
    """The writes of one attempt to documents.

    Attributes:
        shares_session: executions take turns in a session, so that none keeps it while it is paused.
        waiting: the entries that are recorded and not done yet; at first what the claim found.
        is_stored: whether the store still shows entries, which a checkpoint is to remove.
        session: what the agent's code has of its session, once it has asked for it.
    """

    _store: Store
    _lease: Lease
    _context: AgentContext
    shares_session: bool
    waiting: list[Entry]
    is_stored: bool
    session: Any = None
    _hold: Hold | None = None

    @cached_property
    def _said(self) -> list[Message]:
        """What the execution has recorded for its session, in order."""
        return [message for message in self._context.memory.conversation_history if is_of_session(message)]

    # -- with a checkpoint ---------------------------------------------------------------------------------------------

    def carried(self, messages: Iterable[Message], documents: Iterable[Entry]) -> list[Entry]:
        """Return all entries that are to stand in the store with a checkpoint that records these."""
        entries, said = [*self.waiting, *documents], sum(map(is_of_session, messages))
        if said:
            entries.append({"to": "session", "up_to": len(self._said) + said})
        return entries

    def is_recorded_with(self, checkpoint: Checkpoint) -> None:
        """This checkpoint is stored, and what it carries."""
        entries: Any = checkpoint.working_memory.get(OUTBOX_KEY)
        if entries is not None:
            self.waiting, self.is_stored = list(entries), True
            self._said.extend(filter(is_of_session, checkpoint.messages))
        elif OUTBOX_KEY in checkpoint.forget:
            self.is_stored = False

    # -- and after it --------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Do what is recorded. Raise `StoreUnavailable`, after which it may be called again, and `LeaseLost`."""
        while self.waiting:
            try:
                self._write(self.waiting[0])
            except (StoreUnavailable, LeaseLost):
                raise
            except (StoreError, SessionBusy) as error:
                # It would be refused for ever, and hold up the execution that has recorded it.
                log.error("execution %s: a document was not stored: %s", self._lease.execution_id, error)
            del self.waiting[0]

    def _write(self, entry: Mapping[str, Any]) -> None:
        if entry["to"] == "session":
            self._append(entry["up_to"])
        elif entry["to"] == "summary":
            summary = Summary(up_to=entry["up_to"], content=entry["content"])
            self._write_to_session(self.conversation.summarising(summary))
        else:
            self._store.documents.write([_put_of(put) for put in entry["puts"]])

    def _append(self, up_to: int) -> None:
        """Have the session the first `up_to` messages of this execution."""
        session, execution_id = self.conversation, self._lease.execution_id
        while (stored := session.last_of(execution_id)) < up_to:
            missing = [as_said(message, execution_id) for message in self._said[stored:up_to][:_AT_ONCE]]
            operations = session.appending(missing, first=stored + 1, at=session.length())
            with suppress(DocumentConflict):  # another writer's message came between the looks
                self._write_to_session(operations)

    def _write_to_session(self, operations: list[Operation]) -> None:
        try:
            self.hold_session().write(self._store.documents, operations)
        except LeaseLost:
            # Another execution that takes turns with this one held it meanwhile. A later attempt of this one keeps it.
            self._hold = None
            self.hold_session().write(self._store.documents, operations)

    # -- the session ---------------------------------------------------------------------------------------------------

    @property
    def conversation(self) -> Session:
        """The conversation of the execution's session, which it must have."""
        assert self._context.session_id is not None, "checked before"
        return self._store.session(self._context.session_id)

    def hold_session(self) -> Hold:
        """Become the one writer of the session, if this attempt is not.

        Raise `SessionBusy` while another execution is, and `LeaseLost` if a later attempt of this one is.
        """
        if self._hold is None:
            namespace = namespace_of(self._context.session_id or "")
            try:
                self._hold = take_hold(self._store.documents, namespace, self._lease, self._is_active)
            except NamespaceHeld as held:
                agent_id, session_id = self._context.agent_id, self._context.session_id or ""
                raise SessionBusy(agent_id, session_id, held.execution_id) from held
        return self._hold

    def _is_active(self, execution_id: str) -> bool:
        """Return whether an execution keeps the session, if it is the holder."""
        if self.shares_session and execution_id != self._lease.execution_id:
            return False
        summary = self._store.get_summary(execution_id)
        return summary is not None and not summary.state.is_over


def is_of_session(message: Message) -> bool:
    """Return whether a message also goes to the session."""
    return message.metadata.get(SESSION_MARK) is True


def puts_entry(operations: Iterable[Operation]) -> Entry:
    """Return an entry that stores documents of one root, each unless one stands there."""
    return {
        "to": "documents",
        "puts": [
            {
                "namespace": list(put.namespace),
                "key": put.key,
                "value": put.value,
                "metadata": dict(put.metadata),
            }
            for put in operations
            if isinstance(put, Put) and put.keep and not isinstance(put.value, bytes)
        ],
    }


def summary_entry(up_to: int, content: JSONValue) -> Entry:
    """Return an entry that lets `content` stand for the messages of the session up to this number."""
    return {"to": "summary", "up_to": up_to, "content": content}


def _put_of(put: Mapping[str, Any]) -> Put:
    return Put(
        namespace=tuple(put["namespace"]), key=put["key"], value=put["value"], metadata=put["metadata"], keep=True
    )


def as_said(message: Message, execution_id: str, number: int = 0) -> SessionMessage:
    """Return a message of an execution as one of its session."""
    return SessionMessage(
        number=number,
        role=message.role,
        content=message.content,
        metadata={name: value for name, value in message.metadata.items() if name != SESSION_MARK},
        timestamp=message.timestamp,
        execution_id=execution_id,
    )
