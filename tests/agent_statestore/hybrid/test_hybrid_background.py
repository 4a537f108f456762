"""`HybridStore.archive_in_background`: who ends an execution does not wait for the cold store."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_statestore import AgentState, MemoryStore, open_store
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.hybrid import HybridStore, background
from tests.agent_statestore.hybrid.hybrid_life import digest_of, ended, where


class SlowStore(MemoryStore):
    """Takes nothing in while its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.fault: Exception | None = None

    def restore(self, exported: ExportedExecution) -> bool:
        assert self.gate.wait(30)
        if self.fault is not None:
            raise self.fault
        return super().restore(exported)


@pytest.fixture
def cold() -> Iterator[SlowStore]:
    cold = SlowStore()
    yield cold
    cold.gate.set()


@pytest.fixture
def store(cold: SlowStore) -> HybridStore:
    store = HybridStore(MemoryStore(), cold)
    store.archive_in_background()
    return store


def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def test_an_end_does_not_wait_for_a_cold_store_that_hangs(store: HybridStore, cold: SlowStore) -> None:
    ids = [ended(store) for _ in range(20)]  # settled by the write of the end
    store.settle(ids[0])
    assert [where(store, each) for each in ids] == [["hot"]] * 20
    before = [digest_of(store, each) for each in ids]
    cold.gate.set()
    until(lambda: all(where(store, each) == ["cold"] for each in ids))
    assert [digest_of(store, each) for each in ids] == before


def test_what_is_too_much_is_left_to_the_sweep(
    store: HybridStore, cold: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_MOST_WAITING", 3)
    ids = [ended(store) for _ in range(8)]
    cold.gate.set()
    until(lambda: sum(where(store, each) == ["cold"] for each in ids) >= 3)
    time.sleep(0.1)
    assert sum(where(store, each) == ["cold"] for each in ids) <= 4  # one was under way while three waited
    store.tidy()
    assert [where(store, each) for each in ids] == [["cold"]] * 8


def test_a_fault_does_not_end_the_thread(store: HybridStore, cold: SlowStore, caplog: pytest.LogCaptureFixture) -> None:
    cold.gate.set()
    cold.fault = ZeroDivisionError("a driver's own fault")
    first = ended(store)
    until(lambda: first in caplog.text)
    assert caplog.records[-1].levelno == logging.ERROR
    cold.fault = None
    second = ended(store)
    until(lambda: where(store, second) == ["cold"])
    assert where(store, first) == ["hot"]
    store.tidy()
    assert where(store, first) == ["cold"]


def test_closing_waits_for_what_is_under_way_but_not_for_ever(
    store: HybridStore, cold: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold.gate.set()
    ids = [ended(store) for _ in range(50)]
    store.close()
    assert [where(store, each) for each in ids] == [["cold"]] * 50
    cold.gate.clear()
    monkeypatch.setattr(background, "_CLOSING_SECONDS", 0.1)
    ended(store)
    started = time.monotonic()
    store.close()
    assert time.monotonic() - started < 5


def test_a_child_of_a_fork_archives_what_it_ends(tmp_path: Path) -> None:
    with HybridStore(open_store(f"sqlite:///{tmp_path}/hot.db"), open_store(f"sqlite:///{tmp_path}/cold.db")) as store:
        store.archive_in_background()
        before = ended(store)
        until(lambda: where(store, before) == ["cold"])
        execution_id = store.create_context("agent").execution_id
        child = os.fork()
        if child == 0:
            try:
                store.update_state(execution_id, AgentState.COMPLETED)
                until(lambda: where(store, execution_id) == ["cold"])
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert where(store, execution_id) == ["cold"]
        after = ended(store)
        until(lambda: where(store, after) == ["cold"])
