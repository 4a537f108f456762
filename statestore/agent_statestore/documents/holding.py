"""The one writer of a namespace: an execution, from its first use until it is over.

What an execution holds, it holds as long as it is active, also while it is paused; nothing has to be renewed, and
nothing is left behind that somebody would have to clear away. A new attempt of it takes over from the one before, whose
writes are refused from then on: a document of the namespace says who holds it, and every write expects its version.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent_statestore.documents.contract import DocumentStore
from agent_statestore.documents.errors import DocumentConflict, NamespaceHeld
from agent_statestore.documents.places import Namespace
from agent_statestore.documents.records import Document, Expect, Operation, Written
from agent_statestore.errors import LeaseLost
from agent_statestore.records import JSONValue, Lease

_KEY: Final = "holder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The right of one attempt to write to a namespace; `version` is that of the document that says so."""

    namespace: Namespace
    lease: Lease
    version: int

    @property
    def expectation(self) -> Expect:
        """What a write expects that must be refused once another attempt or execution holds the namespace."""
        return Expect(namespace=self.namespace, key=_KEY, version=self.version)

    def write(
        self, documents: DocumentStore, operations: Sequence[Operation], *, write_id: str | None = None
    ) -> Written:
        """Write as the holder; see `DocumentStore.write`. Raise `LeaseLost` if the namespace has another holder."""
        try:
            return documents.write([self.expectation, *operations], write_id=write_id)
        except DocumentConflict as conflict:
            if (conflict.namespace, conflict.key) != (self.namespace, _KEY):
                raise
            raise LeaseLost(self.lease.execution_id, self.lease.token) from conflict


def take_hold(documents: DocumentStore, namespace: Namespace, lease: Lease, is_active: Callable[[str], bool]) -> Hold:
    """Become the holder of a namespace; `is_active` says whether an execution is not over.

    Two round trips, and two more where another execution was the holder. Raise `NamespaceHeld` while another execution
    that is active holds it, and `LeaseLost` if a later attempt of this one does, or this one is over.
    """
    while True:
        document = documents.get(namespace, _KEY)
        held_by = _holder_of(document)
        if held_by is not None:
            execution_id, token = held_by
            if execution_id != lease.execution_id:
                if is_active(execution_id):
                    raise NamespaceHeld(namespace, execution_id)
                if not is_active(lease.execution_id):  # an attempt that was left behind, and came to itself much later
                    raise LeaseLost(lease.execution_id, lease.token)
            if execution_id == lease.execution_id and token > lease.token:
                raise LeaseLost(lease.execution_id, lease.token)
        me: dict[str, JSONValue] = {"execution_id": lease.execution_id, "token": lease.token}
        try:
            version = documents.put(namespace, _KEY, me, if_version=0 if document is None else document.version)
        except DocumentConflict:
            continue  # each round of this loop is another writer's success
        return Hold(namespace=namespace, lease=lease, version=version)


def expect_no_holder(documents: DocumentStore, namespace: Namespace, is_active: Callable[[str], bool]) -> Expect:
    """Return what a write from outside of every execution expects: that the namespace gets no holder meanwhile.

    Raise `NamespaceHeld` while an active execution holds it.
    """
    document = documents.get(namespace, _KEY)
    held_by = _holder_of(document)
    if held_by is not None and is_active(held_by[0]):
        raise NamespaceHeld(namespace, held_by[0])
    return Expect(namespace=namespace, key=_KEY, version=0 if document is None else document.version)


def never_held(namespace: Namespace) -> Expect:
    """Return what `expect_no_holder` returns for a namespace that no execution has held. No round trip."""
    return Expect(namespace=namespace, key=_KEY, version=0)


def _holder_of(document: Document | None) -> tuple[str, int] | None:
    """Return the execution and the token of the claim that hold a namespace, by the document that says so."""
    if document is None or not isinstance(document.value, dict):
        return None
    return str(document.value.get("execution_id")), int(document.value.get("token", 0))
