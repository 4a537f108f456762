"""A prefork pool without an event loop (embedded broker) whose children die, or leave, at a bad moment."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import billiard
import billiard.einfo
import billiard.pool
import psutil
import pytest
from billiard.common import EX_SOFTWARE
from celery.worker.request import Request

from celery_agents.host import lost_process
from celery_agents.host.bell import broker_gate
from celery_agents.host.drain import DrainFlag
from celery_agents.host.lost_process import ExecutionRequest
from celery_agents.host.pool_pipes import MortalLock, Pipe, Pool
from celery_agents.host.runtime import Runtime
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import Command, wait_until
from tests.services.machine import scaled

AGENTS = """
import os, time
from celery_agents import agent

@agent
def who(run, input: None) -> int:
    def pid() -> int:
        time.sleep(0.3)
        return os.getpid()
    return run.step("pid", pid)
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


def children_of(running: Command) -> list[psutil.Process]:
    return psutil.Process(running.process.pid).children()


def test_idle_children_that_are_ended_do_not_hang_the_pool(tmp_path: Path, client: Runtime) -> None:
    """An idle child waits for its next task under a lock that all of them share."""
    with worker(tmp_path, "-P prefork -c 2") as running:
        for number in (signal.SIGKILL, signal.SIGTERM):
            ended = children_of(running)
            pids = {child.pid for child in ended}
            served: set[object] = set()
            while served != pids:  # one that is still starting would not hear of its end
                served |= {execution.wait(scaled(30)) for execution in [start(client, "who", None) for _ in ended]}
            for child in ended:
                child.send_signal(number)
            wait_until("all are gone", lambda: not pids & {child.pid for child in children_of(running)})  # noqa: B023
            assert start(client, "who", None).wait(scaled(30)) not in served, f"{number}: {running.output}"
        running.send(signal.SIGTERM)
        assert running.wait(60) == 0


def in_a_child(lock: MortalLock, last_words: bytes) -> tuple[int, int]:
    """A fork that takes the lock, says so on the pipe whose end is returned with its pid, and waits to be ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        with lock:
            os.write(writing, last_words)
            signal.pause()
    os.close(writing)
    return pid, reading


def test_a_lock_ends_with_the_process_that_holds_it() -> None:
    lock = MortalLock()
    first, said_by_first = in_a_child(lock, b"first")
    assert os.read(said_by_first, 5) == b"first"
    second, said_by_second = in_a_child(lock, b"second")
    wait_until("it waits", lambda: psutil.Process(second).status() == psutil.STATUS_SLEEPING)
    os.set_blocking(said_by_second, False)
    with pytest.raises(BlockingIOError):
        os.read(said_by_second, 6)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    os.set_blocking(said_by_second, True)
    assert os.read(said_by_second, 6) == b"second"
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)
    with lock, lock:
        pass
    for end in (said_by_first, said_by_second):
        os.close(end)


LARGE = "x" * 30_000  # billiard sends its length and the rest one after the other


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(billiard.get_context("fork").SimpleQueue())
    yield pipe
    pipe.close()


def leave(*_: object) -> None:
    """Stands where billiard's handler does, which unwinds a child."""
    os._exit(15)


def told_to_end_after(part: str, pipe: Pipe, use: Callable[[], object], handler: Any = leave) -> int:
    """The exit code of a child that uses the pipe, and gets SIGTERM between the parts of a message."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        signal.signal(signal.SIGTERM, handler)
        end = pipe._writer if part == "_send" else pipe._reader
        whole = getattr(end, part)

        def interrupted(what: object) -> object:
            done = whole(what)
            os.kill(os.getpid(), signal.SIGTERM)
            return done

        setattr(end, part, interrupted)
        use()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_child_that_is_told_to_end_while_it_sends_sends_the_whole_message(pipe: Pipe) -> None:
    assert told_to_end_after("_send", pipe, lambda: pipe.put(LARGE)) == 15
    pipe.put("next")
    pipe._writer.close()  # so that nobody waits for what will never come
    assert [pipe.get(), pipe.get()] == [LARGE, "next"]


def test_a_child_that_is_told_to_end_once_more_while_it_says_goodbye_sends_the_whole_message(pipe: Pipe) -> None:
    assert told_to_end_after("_send", pipe, lambda: pipe.put(LARGE), signal.SIG_DFL) == EX_SOFTWARE
    pipe._writer.close()
    assert pipe.get() == LARGE


def test_a_child_that_is_told_to_end_while_it_takes_a_message_takes_the_whole(pipe: Pipe) -> None:
    pipe.put("its own")
    pipe.put("next")
    assert told_to_end_after("_recv", pipe, pipe.get) == 15
    pipe._writer.close()
    assert pipe.get() == "next"


def test_an_idle_child_is_told_to_end_at_once(pipe: Pipe) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        signal.signal(signal.SIGTERM, leave)
        os.write(writing, b".")
        pipe.get()
    os.read(reading, 1)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 15
    for end in (reading, writing):
        os.close(end)


def test_nobody_looks_for_dead_children_while_one_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, making = threading.Event(), threading.Event()

    def make(pool: Pool, exitcodes: object) -> None:
        making.set()
        assert not looked.wait(0.2)

    monkeypatch.setattr(billiard.pool.Pool, "_setup_queues", lambda _: None)
    monkeypatch.setattr(billiard.pool.Pool, "_repopulate_pool", make)
    monkeypatch.setattr(billiard.pool.Pool, "_join_exited_workers", lambda *_: looked.set())
    pool = Pool.__new__(Pool)
    pool._ctx = billiard.get_context("spawn")
    pool._setup_queues()
    looking = threading.Thread(target=lambda: making.wait(5) and pool._join_exited_workers())
    looking.start()
    pool._repopulate_pool(())
    assert looked.wait(5)
    looking.join()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("_announce_revoked", ("", True, 15, False)), ("on_failure", None)],
)
def test_no_child_is_born_while_the_parent_writes_to_the_result_backend(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[object, ...] | None
) -> None:
    """It would inherit what SQLite remembers of the parent's transaction, and wait for its end for ever."""
    born = threading.Event()

    def fork() -> None:
        broker_gate.close()
        born.set()
        broker_gate.open()

    forking = threading.Thread(target=fork)

    def write(*_: object, **__: object) -> None:
        forking.start()
        assert not born.wait(0.2)

    monkeypatch.setattr(Request, name, write)
    request = ExecutionRequest.__new__(ExecutionRequest)
    if arguments is None:
        try:
            raise ValueError
        except ValueError:
            arguments = (billiard.einfo.ExceptionInfo(),)
    getattr(request, name)(*arguments)
    assert born.wait(5)
    forking.join()


def test_a_cold_shutdown_does_not_tell_of_a_retry_that_celery_will_not_make(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    drain = DrainFlag()
    monkeypatch.setattr(lost_process, "runtime_of", lambda _: SimpleNamespace(drain=drain))
    monkeypatch.setattr(Request, "_announce_cancelled", lambda _, emit_retry=True: told.append(emit_retry))
    request = ExecutionRequest.__new__(ExecutionRequest)
    request.time_start, request.worker_pid, request._apply_result = 1.0, 0, None
    request._task = SimpleNamespace(app=None)

    class AnyPool:
        def terminate_job(self, pid: int, number: int) -> None: ...

    request.cancel(AnyPool())
    assert told == [False]
    assert drain.is_set(), "the deaths that follow count as crashes"
