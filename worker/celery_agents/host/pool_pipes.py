"""The two pipes that the children of a prefork pool share, where the broker has no event loop (files, SQL).

All children take their tasks from one pipe and send their results through the other, each under a lock. With the pipes
of billiard, a child that dies or is told to end at the wrong moment makes the pool stand still for ever, and the worker
does not even shut down:

- billiard's locks are semaphores, and a process that dies keeps them. An idle child holds one while it waits for its
  next task, so whatever kills it (an operator, a system out of memory, the autoscaler) hits exactly this case.
- A signal may interrupt a message between its parts. The parts that follow are then read as something else.
"""

import fcntl
import os
import signal
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from billiard import util
from billiard.common import EX_SOFTWARE, TERM_SIGNAL
from billiard.pool import Pool as BilliardPool
from billiard.queues import SimpleQueue
from celery.concurrency.prefork import TaskPool

# A soft time limit, and the signals that end a child. The last one comes first: what it raises must find the others as
# they were.
_SIGNALS: Final = (signal.SIGUSR1, signal.SIGQUIT, signal.Signals(TERM_SIGNAL))
# How long a child waits, before it ends, for its message to reach a parent that has stopped reading.
_PATIENCE_SECONDS: Final = 5


class MortalLock:
    """A lock between processes that ends with the process that holds it, however that process dies.

    The processes are forks of the one that made the lock. Threads of one process keep each other out, too. A thread may
    take a lock again that it holds: an exception may have left it with the lock, and a child that leaves says goodbye
    under it.
    """

    def __init__(self) -> None:
        # POSIX record locks belong to a process. Unlike locks of `flock`, they are not shared with its forks.
        self._file, path = tempfile.mkstemp(prefix="agents-pool-lock-")
        Path(path).unlink()
        weakref.finalize(self, os.close, self._file).atexit = False  # pools are terminated later than that
        self._threads = threading.RLock()
        util.register_after_fork(self, MortalLock._renew)

    def _renew(self) -> None:
        self._threads = threading.RLock()

    def acquire(self) -> None:
        """Take the lock, once nobody else has it."""
        self._threads.acquire()
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise

    def release(self) -> None:
        """Give the lock back, however often this thread has taken it."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._threads.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Pipe(SimpleQueue):  # type: ignore[misc] # billiard carries no types
    """A pipe whose messages children send and take whole, or not at all. It replaces one of billiard's pipes."""

    def __init__(self, made: SimpleQueue) -> None:
        self._reader, self._writer = made._reader, made._writer
        self._rlock, self._wlock = MortalLock(), MortalLock()
        self._parent = os.getpid()

    def get_payload(self) -> Any:
        """Return the next message. A signal may end the wait for it."""
        with self._rlock:
            self._reader.poll(None)
            with self._undisturbed():
                return self._reader.recv_bytes()

    def send_payload(self, value: Any) -> None:
        """Send a message."""
        with self._wlock, self._undisturbed():
            self._writer.send_bytes(value)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Put off signals that end a child until after this block.

        Handlers do this, because a mask would not: a mask is for one thread, and a signal that another thread receives
        is handled in the main thread all the same. A soft time limit is forgotten: the task that it was meant for is
        over.
        """
        if os.getpid() == self._parent:
            yield
            return
        came: list[int] = []

        def note(number: int, frame: FrameType | None) -> None:
            del frame
            if number != signal.SIGUSR1:
                came.append(number)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(_PATIENCE_SECONDS)

        before = [(number, signal.signal(number, note)) for number in _SIGNALS]
        try:
            yield
        finally:
            for number, handler in reversed(before):
                signal.signal(number, handler if callable(handler) else _end)
            if came:
                signal.alarm(0)
                os.kill(os.getpid(), came[0])


def _end(number: int, frame: FrameType | None) -> None:
    """End a child that gets a second signal while it leaves because of the first; billiard does the same.

    This is a handler, because Python complains about a signal that came just before the default replaced a handler.
    """
    del number, frame
    os._exit(EX_SOFTWARE)


class Pool(BilliardPool):  # type: ignore[misc]
    """billiard's pool, on pipes that outlive any death of a child.

    The pool's own thread replaces its children, and so does whoever scales it. Without a lock, one would take a child
    for dead that the other is about to start, and end the worker over it.
    """

    def _setup_queues(self) -> None:
        super()._setup_queues()
        self._changing = threading.RLock()
        if self._ctx.get_start_method() == "fork":
            made: tuple[SimpleQueue, SimpleQueue] = self._inqueue, self._outqueue  # type: ignore[has-type]
            self._inqueue, self._outqueue = map(Pipe, made)

    def _join_exited_workers(self, shutdown: bool = False) -> Any:
        with self._changing:
            return super()._join_exited_workers(shutdown)

    def _repopulate_pool(self, exitcodes: Any) -> None:
        with self._changing:
            super()._repopulate_pool(exitcodes)


def use_own_pipes() -> None:
    """Make Celery build its blocking pools, the only ones whose children share pipes, as `Pool`. Safe to repeat."""
    TaskPool.BlockingPool = Pool
