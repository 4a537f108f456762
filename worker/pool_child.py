"""How a child of the prefork pool leaves: never with a lock that its successors need."""

import signal
from types import FrameType
from typing import Any

from celery import signals


def leave_safely() -> None:
    """Makes every child of this process's pools give its last message's lock back before it ends."""
    signals.worker_process_shutdown.connect(_prepare_to_leave, weak=False, dispatch_uid="agents-pool-child")


def _prepare_to_leave(**_: Any) -> None:
    """A leaving child tells its parent, who answers with SIGTERM, perhaps while the child still holds the lock.

    With a broker that has no event loop (files, SQL) all children share that lock, and a child that dies with it hangs
    the pool for ever. After a first SIGTERM (a hard time limit, a revoke) the second would kill at once. billiard
    4.3.2 masks it in the main thread only, so that any other thread, such as the one that renews leases, receives it.
    A handler in Python runs in the main thread alone, and unwinds what holds the lock.
    """
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit
