"""Who may write to a thread: within an execution only the one that holds it, and elsewhere anybody while none does."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from agent_statestore.documents import Expect, Namespace, Operation
from agent_statestore.documents.errors import DocumentConflict
from agent_statestore.documents.holding import Hold, never_held
from agent_statestore.errors import LeaseLost
from agent_statestore.records import Lease
from agent_statestore.store import Store
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.run.base_run import BaseRun
from celery_agents.engine.steps.scope import run_around
from celery_agents.errors import ConfigurationError
from celery_agents.integrations.langgraph.own_store import OwnStore
from celery_agents.integrations.langgraph.saver.errors import ThreadChanged

# Room is left for what says who holds the thread.
_AT_ONCE: Final = 900
_MOST_REMEMBERED: Final = 10_000


class Writer(Protocol):
    """Writes to the documents of one thread."""

    def write(self, operations: Sequence[Operation], write_id: str | None = None) -> None:
        """Write all, in one round trip for each 900; the last come last. `write_id` as for `DocumentStore.write`.

        Raise `NamespaceHeld` where another execution holds the thread, and `LeaseLost` for an attempt that has lost its
        execution.
        """
        ...

    def saw(self, checkpoint_ns: str, last: str | None) -> None:
        """The last checkpoint of this namespace was read, and what is written next builds on it."""
        ...

    def enter(self) -> None:
        """Raise what `write` would raise. A holder holds the thread from then on."""
        ...

    def leave(self) -> None:
        """The thread is removed: remove who has held it, too. A holder goes on to hold it."""
        ...


class Writers:
    """The writers of a saver: one for each thread and attempt, by the code that asks."""

    def __init__(self, own: OwnStore, lease: Lease | None, last: Callable[[Namespace, str], str | None]) -> None:
        self._own = own
        self._lease = lease
        self._last = last
        self._lock = threading.Lock()
        self._of_attempts: WeakKeyDictionary[Attempt, dict[Namespace, Holder]] = WeakKeyDictionary()
        self._of_lease: dict[Namespace, Holder] = {}
        self._unheld: dict[Namespace, Expect] = {}

    def of(self, thread_id: str, root: Namespace) -> Writer:
        """Return what writes to this thread for the code that calls: of an execution, in its steps too, or of none."""
        if self._lease is not None:
            return self._holder(self._of_lease, thread_id, root, self._lease, None)
        run = run_around()
        if isinstance(run, BaseRun):
            attempt = run._attempt
            with self._lock:
                is_first = attempt not in self._of_attempts
            if is_first:
                _check_knows(self._own.store, attempt)
            with self._lock:
                holders = self._of_attempts.setdefault(attempt, {})
            return self._holder(holders, thread_id, root, attempt.held.lease, attempt.held)
        return _Bystander(self._own.store, root, self._unheld)

    def _holder(
        self,
        holders: "dict[Namespace, Holder]",
        thread_id: str,
        root: Namespace,
        lease: Lease,
        held: HeldLease | None,
    ) -> "Holder":
        with self._lock:
            if root not in holders:
                holders[root] = Holder(self._own.store, thread_id, root, lease, held, self._last)
            return holders[root]


class Holder:
    """Writes for one attempt of an execution, which holds the thread from its first write until it is over."""

    def __init__(
        self,
        store: Store,
        thread_id: str,
        root: Namespace,
        lease: Lease,
        held: HeldLease | None,
        last: Callable[[Namespace, str], str | None],
    ) -> None:
        self._store = store
        self._thread_id = thread_id
        self._root = root
        self._lease = lease
        self._held = held
        self._last = last
        self._lock = threading.Lock()
        self._hold: Hold | None = None
        self._seen: dict[str, str | None] = {}

    def write(self, operations: Sequence[Operation], write_id: str | None = None) -> None:
        """See `Writer`. Three round trips more for the first write, or four."""
        hold = self._entered()
        try:
            for number, some in _portions(operations):
                hold.write(self._store.documents, some, write_id=_numbered(write_id, number))
        except LeaseLost:
            self._lose()
            raise

    def saw(self, checkpoint_ns: str, last: str | None) -> None:
        """See `Writer`: another execution may have written between this reading and the first write, and be over."""
        with self._lock:
            if self._hold is None:
                self._seen[checkpoint_ns] = last

    def enter(self) -> None:
        """See `Writer`."""
        self._entered()

    def leave(self) -> None:
        """See `Writer`."""

    def _entered(self) -> Hold:
        if self._held is not None and self._held.is_lost:
            self._lose()
            raise LeaseLost(self._lease.execution_id, self._lease.token)
        with self._lock:
            if self._hold is None:
                try:
                    hold = self._store.hold_namespace(self._root, self._lease)
                except LeaseLost:
                    self._lose()
                    raise
                for checkpoint_ns, read in self._seen.items():
                    found = self._last(self._root, checkpoint_ns)
                    if found != read:
                        raise ThreadChanged(self._thread_id, read, found)
                self._hold = hold
            return self._hold

    def _lose(self) -> None:
        """Tell the engine, which then writes nothing more either, whatever the code around makes of the error."""
        if self._held is not None:
            self._held.mark_lost()


class _Bystander:
    """Writes for code outside of executions: as to any saver, but never to a thread that an execution works on."""

    def __init__(self, store: Store, root: Namespace, unheld: dict[Namespace, Expect]) -> None:
        self._store = store
        self._root = root
        self._unheld = unheld

    def write(self, operations: Sequence[Operation], write_id: str | None = None) -> None:
        """See `Writer`. Two or three round trips more where an execution has held the thread before."""
        for number, some in _portions(operations):
            self._write(some, _numbered(write_id, number))

    def saw(self, checkpoint_ns: str, last: str | None) -> None:
        """Nothing comes of it, as with any saver: who writes at the same time must look after that."""

    def enter(self) -> None:
        """See `Writer`. One round trip, or two."""
        self._look()

    def leave(self) -> None:
        """See `Writer`. One round trip; an execution that has come meanwhile keeps its hold."""
        stands = self._unheld.pop(self._root, None) or never_held(self._root)
        with suppress(DocumentConflict):
            self._store.documents.remove(stands.namespace, stands.key, if_version=stands.version)

    def _write(self, operations: Sequence[Operation], write_id: str | None) -> None:
        while True:
            expected = self._unheld.get(self._root) or never_held(self._root)
            try:
                self._store.documents.write([expected, *operations], write_id=write_id)
            except DocumentConflict as conflict:
                if (conflict.namespace, conflict.key) != (expected.namespace, expected.key):
                    raise
                self._look()  # each round of this loop is another execution's
            else:
                return

    def _look(self) -> None:
        if len(self._unheld) >= _MOST_REMEMBERED:
            self._unheld.clear()
        self._unheld[self._root] = self._store.expect_no_holder(self._root)


def _check_knows(store: Store, attempt: Attempt) -> None:
    """Raise `ConfigurationError` for another store than the execution's, where nobody could say who holds a thread."""
    own, execution_id = attempt.recorder.store, attempt.context.execution_id
    if store is not own and store.get_summary(execution_id) is None:
        raise ConfigurationError(
            "store", f"the saver's, {store.url}, does not know execution {execution_id}: {own.url}"
        )


def _portions(operations: Sequence[Operation]) -> list[tuple[int, Sequence[Operation]]]:
    return [(at, operations[at : at + _AT_ONCE]) for at in range(0, len(operations), _AT_ONCE)]


def _numbered(write_id: str | None, number: int) -> str | None:
    return f"{write_id}-{number}" if write_id and number else write_id
