"""Deliveries as the store keeps them: documents of one root, and an index of those that are due."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from agent_statestore.clock import from_us, to_us
from agent_statestore.documents import Document, DocumentQuery, DocumentStore, Operation, Put, Remove
from agent_statestore.documents.errors import DocumentConflict, DocumentUnreadable
from agent_statestore.envelope import dump
from agent_statestore.errors import FormatTooNew
from agent_statestore.plain_text import line_logger
from agent_statestore.records import JSONValue
from celery_agents.settings import WebhookEvent

log = line_logger(__name__)

NAMESPACE: Final = ("webhooks", "deliveries")
_DUE: Final = (*NAMESPACE, "due")

# For so long it is remembered that something was told, so that a later pause on the same question tells nobody again.
_DELIVERED_FOR: Final = timedelta(days=7)
_DEAD_FOR: Final = timedelta(days=30)
# When to look again at a delivery that a newer version has written.
_UNREADABLE_FOR: Final = timedelta(hours=1)
_LONGEST_REASON: Final = 300


class DeliveryStatus(StrEnum):
    """How far a delivery has come."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedWait:
    """The wait that a delivery tells of: see `agent_statestore.Wait`."""

    kind: str
    key: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Something that one receiver is to be told.

    Attributes:
        event: of what.
        receiver: the name of the receiver.
        execution_id, agent_id: of which execution.
        at: when it happened, on the store's clock.
        asked: the question or approval; None for an end.
        attempt: the claim under which it was noted; 0 for an end.
        state: for an end, the state; "deleted" for an execution that was deleted before it ended.
        reminder: the number of the reminder, from 1; 0 for anything else.
        due_at: when it is tried (again).
        tries: how often it was tried.
        last: what came of the last try.
        status: how far it has come.
        version: that of its document.
    """

    event: WebhookEvent
    receiver: str
    execution_id: str
    agent_id: str
    at: datetime
    asked: AskedWait | None = None
    attempt: int = 0
    state: str | None = None
    reminder: int = 0
    due_at: datetime
    tries: int = 0
    last: str | None = None
    status: DeliveryStatus = DeliveryStatus.PENDING
    version: int = field(default=0, compare=False)

    @property
    def message_id(self) -> str:
        """The webhook id: the same for every try, and after a crash that wrote it twice."""
        asked = None if self.asked is None else [self.asked.kind, self.asked.key, self.asked.round]
        facts = [self.event.value, self.execution_id, asked, self.reminder, self.state]
        if self.asked is None:
            facts.append(to_us(self.at))
        elif self.reminder:
            facts.append(self.receiver)  # each has reminders of its own. Their time differs where the pause was redone.
        return f"msg_{sha256(dump(facts, 'delivery').encode()).hexdigest()[:32]}"

    @property
    def key(self) -> str:
        """The key of its document."""
        return f"{self.execution_id}.{self.message_id}.{self.receiver}"

    @property
    def _place_in_line(self) -> str:
        return f"{to_us(self.due_at):016d}.{self.key}"

    def _value(self) -> dict[str, JSONValue]:
        asked = self.asked
        return {
            "event": self.event.value,
            "receiver": self.receiver,
            "execution_id": self.execution_id,
            "agent_id": self.agent_id,
            "at": to_us(self.at),
            "asked": None if asked is None else [asked.kind, asked.key, asked.round],
            "attempt": self.attempt,
            "state": self.state,
            "reminder": self.reminder,
            "due": to_us(self.due_at),
            "tries": self.tries,
            "last": self.last,
            "status": self.status.value,
        }

    @classmethod
    def of(cls, document: Document) -> "Delivery":
        """Return the delivery of a document."""
        value: Any = document.value
        asked = value["asked"]
        return cls(
            event=WebhookEvent(value["event"]),
            receiver=value["receiver"],
            execution_id=value["execution_id"],
            agent_id=value["agent_id"],
            at=from_us(value["at"]),
            asked=None if asked is None else AskedWait(kind=asked[0], key=asked[1], round=asked[2]),
            attempt=value["attempt"],
            state=value["state"],
            reminder=value["reminder"],
            due_at=from_us(value["due"]),
            tries=value["tries"],
            last=value["last"],
            status=DeliveryStatus(value["status"]),
            version=document.version,
        )

    def _put(self, *, if_version: int, ttl: timedelta | None = None) -> Put:
        metadata: Mapping[str, JSONValue] = {"status": self.status.value}
        return Put(
            namespace=NAMESPACE, key=self.key, value=self._value(), metadata=metadata, if_version=if_version, ttl=ttl
        )

    def stored_new(self) -> list[Operation]:
        """Return the operations that store it, unless it is there already."""
        return [self._put(if_version=0), self._in_line()]

    def stored_as(self, change: "Delivery") -> list[Operation]:
        """Return the operations that store `change` in its place, if nobody else has changed it meanwhile."""
        ttl = {DeliveryStatus.DELIVERED: _DELIVERED_FOR, DeliveryStatus.DEAD: _DEAD_FOR}.get(change.status)
        operations: list[Operation] = [change._put(if_version=self.version, ttl=ttl)]
        is_in_line, stays = self.status is DeliveryStatus.PENDING, change.status is DeliveryStatus.PENDING
        if is_in_line and not (stays and change._place_in_line == self._place_in_line):
            operations.append(Remove(namespace=_DUE, key=self._place_in_line))
        if stays and not (is_in_line and change._place_in_line == self._place_in_line):
            operations.append(change._in_line())
        return operations

    def removed(self) -> list[Operation]:
        """Return the operations that remove it, if nobody else has changed it meanwhile."""
        return [
            Remove(namespace=NAMESPACE, key=self.key, if_version=self.version),
            Remove(namespace=_DUE, key=self._place_in_line),
        ]

    def _in_line(self) -> Put:
        return Put(namespace=_DUE, key=self._place_in_line, value=None, metadata={})


class Deliveries:
    """The deliveries of a store. Every change is one atomic write, which nobody else's change is lost to."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def note(self, deliveries: Sequence[Delivery]) -> None:
        """Store deliveries, except for those that are stored. Raise `StoreError`, after which it may be repeated."""
        try:
            self._documents.write([operation for one in deliveries for operation in one.stored_new()])
        except DocumentConflict:
            for delivery in deliveries:
                self._note(delivery)

    def _note(self, delivery: Delivery) -> None:
        while True:
            with suppress(DocumentConflict):
                document = self._documents.get(NAMESPACE, delivery.key)
                if document is None:
                    self._documents.write(delivery.stored_new())
                    return
                stored = Delivery.of(document)
                if stored.status is DeliveryStatus.PENDING and stored.attempt < delivery.attempt:
                    # Otherwise it would be withdrawn, as that of an attempt that has not asked in the end.
                    self._documents.write(stored.stored_as(replace(stored, attempt=delivery.attempt)))
                return

    def take_due(self, now: datetime, limit: int, hold: timedelta) -> list[Delivery]:
        """Return at most `limit` deliveries that are due, longest due first. They are due again after `hold`.

        So each goes to one caller, and what a caller does not finish is done by another. Raise `StoreError`.
        """
        query = DocumentQuery(namespace=_DUE, before=f"{to_us(now) + 1:016d}", limit=limit, values=False)
        taken = []
        for place in self._documents.list(query).items:
            delivery = self._in_line_at(place.key, now)
            if delivery is not None:
                changed = self.change(delivery, due_at=now + hold)
                if changed is not None:
                    taken.append(changed)
        return taken

    def _in_line_at(self, place: str, now: datetime) -> Delivery | None:
        """Return the delivery that has this place in the line; None, and leave no place, if there is none."""
        key = place.partition(".")[2]
        try:
            document = self._documents.get(NAMESPACE, key)
            delivery = None if document is None else Delivery.of(document)
        except (DocumentUnreadable, FormatTooNew, *_MISSHAPEN) as error:
            log.warning("delivery %s cannot be read: %s", key, error)
            later = f"{to_us(now + _UNREADABLE_FOR):016d}.{key}"
            self._documents.write(
                [
                    Remove(namespace=_DUE, key=place),
                    Put(namespace=_DUE, key=later, value=None, ttl=_DEAD_FOR),
                ]
            )
            return None
        if delivery is None or delivery.status is not DeliveryStatus.PENDING or delivery._place_in_line != place:
            self._documents.remove(_DUE, place)
            return None
        return delivery

    def change(self, delivery: Delivery, **fields: Any) -> Delivery | None:
        """Store a change of a delivery, and return it as it is then; None if somebody else has changed it."""
        if "last" in fields:
            fields["last"] = str(fields["last"])[:_LONGEST_REASON]
        changed = replace(delivery, **fields)
        try:
            written = self._documents.write(delivery.stored_as(changed))
        except DocumentConflict:
            return None
        return replace(changed, version=written.versions[0])

    def withdraw(self, delivery: Delivery) -> None:
        """Remove a delivery that tells nothing any more, unless somebody else has changed it."""
        with suppress(DocumentConflict):
            self._documents.write(delivery.removed())

    def list(self, *, status: DeliveryStatus | None = None, execution_id: str | None = None) -> Iterator[Delivery]:
        """Yield the deliveries that are kept, by execution."""
        query = DocumentQuery(
            namespace=NAMESPACE,
            where={} if status is None else {"status": status.value},
            after=None if execution_id is None else f"{execution_id}.",
            before=None if execution_id is None else f"{execution_id}/",
        )
        for document in self._documents.list_all(query):
            if document.unreadable is None:
                yield Delivery.of(document)

    def get(self, key: str) -> Delivery | None:
        """Return the delivery of this key, or None."""
        document = self._documents.get(NAMESPACE, key)
        return None if document is None else Delivery.of(document)

    def retry(self, delivery: Delivery, now: datetime) -> bool:
        """Have a dead delivery tried anew from now on; return False if it is not dead."""
        if delivery.status is not DeliveryStatus.DEAD:
            return False
        return self.change(delivery, status=DeliveryStatus.PENDING, tries=0, due_at=now) is not None


_MISSHAPEN: Final = (ValueError, TypeError, LookupError)
