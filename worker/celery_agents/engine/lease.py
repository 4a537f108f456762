"""The lease keeper: one daemon thread per process renews the leases of all executions that run in it, in one call.

A renewal tells of cancels, too. While a call is in flight that can be ended for one, or for what somebody says, the
keeper asks more often, by one look that writes nothing, for all such executions of the process.

It lives in the process that executes (not in a worker's parent, which would go on renewing for a frozen child), and is
started again after a fork. Where nothing is executed for a while, it ends.

When the worker begins to shut down, it also tells the store that the death of these claims would be no crash: whoever
shuts down may not have the patience to wait for a long step.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import Lease
from agent_statestore.store import Store
from celery_agents.engine.cutting import CuttableCalls
from celery_agents.engine.patience import Outage

log = line_logger(__name__)

_IDLE_SECONDS: Final = 2.0
# How often it is looked whether the worker shuts down. The flag is memory, shared with the worker's parent process.
_LOOK_SECONDS: Final = 0.5
# How often the store is asked what does not wait for a renewal, while something is in flight that can be ended for it.
_HEAR_SECONDS: Final = 1.0


class HeldLease:
    """A lease that this process holds, and what the keeper has learnt of it.

    `deadline` is on this process's monotonic clock, counted from before the request that took or renewed the lease was
    sent, so that it never lies after the store's own end of the lease.
    """

    def __init__(self, lease: Lease, requested_at: float) -> None:
        self.lease = lease
        self.deadline = requested_at + lease.ttl.total_seconds()
        self._changed = threading.Event()
        self._lost = False
        # Whether somebody asked for the execution to be cancelled.
        self.cancel_requested = False
        # The crashes that the store counted before this claim; None until they are known.
        self.crashes_before: int | None = None
        self._is_forgiven = False
        self._counting = threading.Lock()
        self._listeners: set[Callable[[], None]] = set()
        self._cuttable: CuttableCalls | None = None
        self._making = threading.Lock()

    @property
    def is_lost(self) -> bool:
        """Whether the lease is known to be lost, or has run out by this process's own clock."""
        return self._lost or time.monotonic() >= self.deadline

    @property
    def cuttable(self) -> CuttableCalls:
        """The calls that what somebody says may cut off. Made when first needed, as most executions have none."""
        with self._making:
            self._cuttable = self._cuttable or CuttableCalls()
            return self._cuttable

    @property
    def is_listening(self) -> bool:
        """Whether something is in flight that would end at once on a cancel, a lost lease or an interrupt."""
        return bool(self._listeners) or (self._cuttable is not None and self._cuttable.are_in_flight)

    def mark_lost(self) -> None:
        """Somebody else has the execution, or may have it."""
        self._lost = True
        self._tell()

    def mark_cancel_requested(self) -> None:
        """A cancel is in the mailbox."""
        self.cancel_requested = True
        self._tell()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not past the moment when the lease is lost or a cancel is asked for."""
        self._changed.wait(seconds)

    def forgive(self, store: Store) -> None:
        """Make the store count this claim as no crash, however it ends. Raise `StoreError`."""
        if self._is_forgiven or self.crashes_before is None:
            return
        with self._counting:
            store.forgive(self.lease, self.crashes_before)
            self._is_forgiven = True

    def give_back(self, store: Store, *, crashed: bool) -> None:
        """Release the lease. Raise `StoreError`."""
        with self._counting:  # a claim that was forgiven is not taken back as well
            store.release(self.lease, crashed=crashed or self._is_forgiven)

    @contextmanager
    def telling(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls the listener, from any thread, when the lease is lost or a cancel is asked for during the block."""
        self._listeners.add(listener)
        try:
            if self._changed.is_set():
                listener()
            yield
        finally:
            self._listeners.discard(listener)

    def _tell(self) -> None:
        self._changed.set()
        for listener in tuple(self._listeners):
            listener()


def _tell_of_ends(held: list[HeldLease]) -> None:
    """Whoever awaits something under a lease that has run out unrenewed is told: somebody else may have it."""
    for one in held:
        if one.is_lost:
            one.mark_lost()


class LeaseKeeper:
    """Renews all held leases every third of their ttl. `is_draining` says that the worker shuts down."""

    def __init__(self, store: Store, is_draining: Callable[[], bool] | None = None) -> None:
        self._store = store
        self._is_draining = is_draining
        self._lock = threading.Lock()
        self._held: dict[str, HeldLease] = {}
        self._wake = threading.Event()
        self._pid: int | None = None
        self._renewing = Outage(log, "the renewal of leases")
        self._forgiving = Outage(log, "telling the store that a shutdown is no crash")

    @contextmanager
    def keep(self, lease: Lease, requested_at: float) -> Iterator[HeldLease]:
        """Keeps a lease alive for the length of the block. `requested_at` is `time.monotonic()` before its claim."""
        held = HeldLease(lease, requested_at)
        with self._lock:
            self._held[lease.execution_id] = held
            if self._pid != os.getpid():
                # Threads do not survive a fork: the first lease in a child starts its own.
                self._held = {lease.execution_id: held}
                self._wake = threading.Event()
                threading.Thread(target=self._loop, args=(self._wake,), name="lease-keeper", daemon=True).start()
                self._pid = os.getpid()
        self._wake.set()
        try:
            yield held
        finally:
            with self._lock:
                if self._held.get(lease.execution_id) is held:
                    del self._held[lease.execution_id]

    def _loop(self, wake: threading.Event) -> None:
        next_at: float | None = None
        hear_at = 0.0
        while True:
            was_woken = wake.wait(_IDLE_SECONDS if next_at is None else self._pause_seconds(min(next_at, hear_at)))
            wake.clear()
            with self._lock:
                held = list(self._held.values())
                if not held and not was_woken and next_at is None:
                    self._pid = None  # whoever holds the next lease starts another one
                    return
            if not held:
                next_at = None
                self._renewing.forget()
                continue
            if self._is_draining is not None and self._is_draining():
                self._forgive(held)
            interval = min(one.lease.ttl.total_seconds() for one in held) / 3
            now = time.monotonic()
            if next_at is None:
                next_at, hear_at = now + interval, now + _HEAR_SECONDS
            next_at = min(next_at, now + interval)
            if now >= hear_at:
                hear_at = now + _HEAR_SECONDS
                self._hear([one for one in held if one.is_listening])
            if now >= next_at:
                next_at = now + (interval if self._renew(held) else min(interval, 1.0))

    def _pause_seconds(self, next_at: float) -> float:
        seconds = max(next_at - time.monotonic(), 0.0)
        return seconds if self._is_draining is None else min(seconds, _LOOK_SECONDS)

    def _forgive(self, held: list[HeldLease]) -> None:
        """Forgive all that are not forgiven yet; the next look tries again."""
        for one in held:
            try:
                one.forgive(self._store)
            except StoreError as error:
                self._forgiving.failed(error)
                return
            except Exception:
                log.exception("a claim could not be forgiven, trying again")
                return
        self._forgiving.succeeded()

    def _hear(self, listening: list[HeldLease]) -> None:
        """One look at what does not wait. A fault is no matter: the renewal tells of it, and the next look comes."""
        if not listening:
            return
        try:
            heard = self._store.hear([one.lease for one in listening])
        except StoreError as error:
            log.debug("what came for executions in flight could not be heard: %s", error)
            return
        except Exception:
            log.exception("what came for executions in flight could not be heard, trying again")
            return
        for one in listening:
            execution_id = one.lease.execution_id
            if execution_id in heard.lost:
                one.mark_lost()
            if execution_id in heard.cancel_requested:
                one.mark_cancel_requested()
            if execution_id in heard.interrupts:
                one.cuttable.cut(heard.interrupts[execution_id])

    def _renew(self, held: list[HeldLease]) -> bool:
        """One renewal of all; False if the store could not be reached."""
        requested_at = time.monotonic()
        try:
            renewed = self._store.renew([one.lease for one in held], held[0].lease.ttl)
        except StoreUnavailable as error:
            self._renewing.failed(error)
            _tell_of_ends(held)
            return False
        except Exception:
            # This thread is all that keeps the leases: it must outlive any fault of a driver.
            log.exception("leases could not be renewed, trying again")
            _tell_of_ends(held)
            return False
        self._renewing.succeeded()
        for one in held:
            execution_id = one.lease.execution_id
            if execution_id in renewed.lost:
                one.mark_lost()
            else:
                one.deadline = requested_at + held[0].lease.ttl.total_seconds()
            if execution_id in renewed.cancel_requested:
                one.mark_cancel_requested()
        return True
