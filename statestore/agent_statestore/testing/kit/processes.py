"""Several processes that call the same store at the same moment."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Protocol

from agent_statestore.clock import Clock
from agent_statestore.store import Store

PATIENCE_SECONDS = 60.0


class Reopen(Protocol):
    """Opens the same store anew. It must survive pickling: it is called in other processes."""

    def __call__(self, *, clock: Clock | None) -> Store:
        """Return the store, on the given clock, or on its server's own."""
        ...


class ProcessTeam:
    """Processes that wait for calls. Each call opens the store, waits for the others, and runs."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def __len__(self) -> int:
        return len(self._pipes)

    def run(self, reopen: Reopen, clock: Clock | None, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call function(store, member, *args) in all of them at once, and return what each returned.

        Raise `RuntimeError` with the traceback of one that failed.
        """
        for member, pipe in enumerate(self._pipes):
            pipe.send((reopen, clock, function, (member, *args)))
        answers = []
        for pipe in self._pipes:
            if not pipe.poll(PATIENCE_SECONDS):
                raise RuntimeError("a process of the team does not answer")
            answers.append(pipe.recv())
        for is_good, answer in answers:
            if not is_good:
                raise RuntimeError(f"a process of the team failed:\n{answer}")
        return [answer for _, answer in answers]


@contextmanager
def process_team(size: int) -> Iterator[ProcessTeam]:
    """Start the processes, which share nothing with this one, and end them afterwards.

    They come from multiprocessing's fork server: what a conftest names by `set_forkserver_preload` is imported once.
    """
    server = multiprocessing.get_context("forkserver")
    barrier = server.Barrier(size)
    ours, theirs = zip(*(server.Pipe() for _ in range(size)), strict=True)
    processes = [server.Process(target=_member, args=(pipe, barrier), daemon=True) for pipe in theirs]
    for process in processes:
        process.start()
    try:
        yield ProcessTeam(list(ours))
    finally:
        for pipe in (*ours, *theirs):
            pipe.close()
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


def _member(pipe: Connection, barrier: Barrier) -> None:
    while True:
        try:
            reopen, clock, function, args = pipe.recv()
        except EOFError:
            return
        try:
            with reopen(clock=clock) as store:
                store.check()
                barrier.wait(PATIENCE_SECONDS)
                answer = (True, function(store, *args))
        except Exception:  # noqa: BLE001 - reported to the test
            answer = (False, traceback.format_exc())
        pipe.send(answer)
