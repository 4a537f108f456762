"""Forks while other threads are inside SQLite."""

import gc
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_statestore.drivers.fork_gate import ForkGate
from agent_statestore.sql import SQLStore
from agent_statestore.sql.sqlite.fork_gate import GatedConnection, sqlite_gate
from agent_statestore.testing.kit.together import all_succeeded, together

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SHORT_SECONDS = 0.1
LONG_SECONDS = 20.0


@pytest.fixture
def gate() -> ForkGate:
    return ForkGate("it", patience_seconds=LONG_SECONDS)


@pytest.fixture
def threads() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Starts threads, which must end with the test."""
    started = []

    def start(run: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        started.append(thread)
        return thread

    yield start
    for thread in started:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()


Start = Callable[[Callable[[], object]], threading.Thread]


def stay(gate: ForkGate, threads: Start) -> Callable[[], None]:
    """Has another thread inside; returns what makes it leave."""
    inside, leave = threading.Event(), threading.Event()

    def run() -> None:
        with gate:
            inside.set()
            leave.wait(LONG_SECONDS)

    threads(run)
    assert inside.wait(LONG_SECONDS)
    return leave.set


def in_child(call: Callable[[], object]) -> int:
    """Forks; returns the exit code of a child that makes the call, -1 if it does not end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + LONG_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def test_a_fork_waits_for_whoever_is_inside_and_holds_the_others_off(gate: ForkGate, threads: Start) -> None:
    leave = stay(gate, threads)
    closed, opened, order = threading.Event(), threading.Event(), list[str]()

    def fork() -> None:
        gate.close()
        order.append("fork")
        closed.set()
        opened.wait(LONG_SECONDS)
        order.append("forked")
        gate.open()

    def enter() -> None:
        with gate:
            order.append("enter")

    threads(fork)
    while not gate.is_closed:
        time.sleep(0.001)
    threads(enter)
    assert not closed.wait(SHORT_SECONDS)
    leave()
    assert closed.wait(LONG_SECONDS)
    time.sleep(SHORT_SECONDS)
    assert order == ["fork"]
    opened.set()
    deadline = time.monotonic() + LONG_SECONDS
    while len(order) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert order == ["fork", "forked", "enter"]


def test_any_number_of_threads_are_inside_at_once(gate: ForkGate) -> None:
    barrier = threading.Barrier(4)

    def enter() -> None:
        with gate:
            barrier.wait(LONG_SECONDS)

    all_succeeded(together(*[enter] * 4))


def test_who_is_inside_may_enter_again_while_a_fork_waits_for_it(gate: ForkGate, threads: Start) -> None:
    def fork() -> None:
        gate.close()
        gate.open()

    with gate:
        thread = threads(fork)
        while not gate.is_closed:
            time.sleep(0.001)
        with gate:
            pass
        assert gate.enter_now()
        gate.__exit__()
        thread.join(SHORT_SECONDS)
        assert thread.is_alive()


def test_threads_that_fork_while_they_are_inside_do_not_wait_for_each_other(gate: ForkGate) -> None:
    barrier = threading.Barrier(2)

    def fork() -> None:
        with gate:
            barrier.wait(LONG_SECONDS)
            gate.close()
            with gate:
                pass
            gate.open()

    started = time.monotonic()
    all_succeeded(together(fork, fork))
    assert time.monotonic() - started < LONG_SECONDS


def test_the_forking_thread_may_enter_in_the_middle_of_its_fork(gate: ForkGate) -> None:
    gate.close()
    with gate:
        assert gate.enter_now()
        gate.__exit__()
    gate.open()


def test_a_fork_loses_its_patience_once(threads: Start, caplog: pytest.LogCaptureFixture) -> None:
    gate = ForkGate("it", patience_seconds=SHORT_SECONDS)
    leave = stay(gate, threads)
    for _ in range(2):
        gate.close()
        gate.open()
    assert len(caplog.records) == 1
    leave()


def test_after_a_fork_in_the_middle_of_a_call_both_sides_go_on(tmp_path: Path) -> None:
    with SQLStore(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.check()
        with sqlite_gate:
            assert in_child(lambda: store.create_context("agent")) == 0
        assert in_child(lambda: store.create_context("agent")) == 0
        store.create_context("agent")
        assert len(store.find().items) == 3


def test_a_child_opens_files_whatever_the_threads_of_its_parent_did(tmp_path: Path, threads: Start) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    stop = threading.Event()

    def open_and_read() -> None:
        while not stop.is_set():
            with SQLStore(url) as other:
                other.find()
            SQLStore(url).find()  # left to the collector

    def look_at_the_schema() -> None:
        while not stop.is_set():
            SQLStore(url).revision()

    def use() -> None:
        with SQLStore(url) as other:
            other.create_context("child")

    with SQLStore(url) as store:
        store.check()
        threads(open_and_read)
        threads(look_at_the_schema)
        try:
            assert [in_child(use) for _ in range(15)] == [0] * 15
        finally:
            stop.set()
        assert len(store.find().items) == 15


# -- closing -----------------------------------------------------------------------------------------------------------


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


def test_a_connection_that_is_closed_during_a_fork_is_closed_after_it(tmp_path: Path, threads: Start) -> None:
    connection = sqlite3.connect(tmp_path / "a.db", factory=GatedConnection, check_same_thread=False)
    sqlite_gate.close()
    threads(connection.close).join(LONG_SECONDS)
    assert is_open(connection)
    sqlite_gate.open()
    GatedConnection.close_left()
    assert not is_open(connection)


def test_a_child_does_not_close_what_it_inherited(tmp_path: Path) -> None:
    connections = [sqlite3.connect(tmp_path / "a.db", factory=GatedConnection) for _ in range(2)]

    def close() -> None:
        kept = connections[0]
        kept.close()
        del connections[:]
        gc.collect()
        assert is_open(kept)
        assert len(GatedConnection._inherited) >= 2

    assert in_child(close) == 0
    for connection in connections:
        connection.close()
        assert not is_open(connection)


def test_the_collector_closes_a_connection(tmp_path: Path) -> None:
    def files() -> int:
        return sum(fd.resolve() == path for fd in Path("/proc/self/fd").iterdir())

    path = tmp_path / "a.db"
    connection = sqlite3.connect(path, factory=GatedConnection)
    connection.execute("CREATE TABLE t (c)")
    assert files() == 1
    del connection
    gc.collect()
    assert files() == 0


def test_a_connection_that_never_opened_is_collected(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(tmp_path / "absent" / "a.db", factory=GatedConnection)
    gc.collect()
