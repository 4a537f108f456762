"""The lease keeper's thread: there while something is executed, and not for ever after."""

import threading
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import Claim, ManualClock, MemoryStore
from agent_statestore.errors import StoreUnavailable
from celery_agents.engine import lease as module
from celery_agents.engine.lease import LeaseKeeper
from tests.services.commands import wait_until


def keepers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "lease-keeper"}


def claimed(store: MemoryStore, ttl: timedelta = timedelta(seconds=0.3)) -> Claim:
    claim = store.claim(store.create_context("agent", None).execution_id, "host/1/0", ttl)
    assert claim is not None
    return claim


def test_the_thread_ends_when_nothing_is_executed_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.05)
    store = MemoryStore()
    renewals: list[Any] = []
    renew = store.renew
    monkeypatch.setattr(store, "renew", lambda leases, ttl: renewals.append(leases) or renew(leases, ttl))
    keeper, before = LeaseKeeper(store), keepers()
    for number in (1, 2):
        claim = claimed(store)
        with keeper.keep(claim.lease, module.time.monotonic()) as held:
            (thread,) = keepers() - before
            wait_until("a renewal", lambda number=number: len(renewals) >= number)  # type: ignore[misc]
            assert not held.is_lost
        wait_until("its end", lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
    assert keepers() - before == set()


def test_a_lease_that_comes_at_the_moment_of_the_threads_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.0)
    store = MemoryStore(clock=ManualClock())
    keeper, renewed = LeaseKeeper(store), threading.Event()
    renew = store.renew

    def renews(leases: Any, ttl: timedelta) -> Any:
        renewed.set()
        return renew(leases, ttl)

    monkeypatch.setattr(store, "renew", renews)
    for _ in range(200):
        with keeper.keep(claimed(store, timedelta(seconds=15)).lease, module.time.monotonic()):
            pass
    claim = claimed(store)
    with keeper.keep(claim.lease, module.time.monotonic()):
        assert renewed.wait(5)


def test_who_waits_under_a_lease_is_told_when_it_runs_out_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()

    def away(leases: Any, ttl: timedelta) -> Any:
        raise StoreUnavailable("memory", "away")

    monkeypatch.setattr(store, "renew", away)
    keeper, told = LeaseKeeper(store), threading.Event()
    with keeper.keep(claimed(store).lease, module.time.monotonic()) as held, held.telling(told.set):
        assert told.wait(5)
        assert held.is_lost


def test_a_claim_is_forgiven_once_the_worker_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    store, draining, told = MemoryStore(clock=ManualClock()), threading.Event(), threading.Event()
    execution_id = store.create_context("agent", None).execution_id
    before = store.claim(execution_id, "host/1/0", timedelta(seconds=15))
    assert before is not None
    store.release(before.lease, crashed=True)
    claim = store.claim(execution_id, "host/1/0", timedelta(seconds=15))
    assert claim is not None
    forgive, fails = store.forgive, [True]

    def forgives(lease: Any, crashes: int) -> bool:
        if fails.pop() if fails else False:
            raise StoreUnavailable("memory", "away")
        told.set()
        return forgive(lease, crashes)

    def crashes() -> int:
        summary = store.get_summary(execution_id)
        assert summary is not None
        return summary.crashes

    monkeypatch.setattr(store, "forgive", forgives)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    with LeaseKeeper(store, draining.is_set).keep(claim.lease, module.time.monotonic()) as held:
        held.crashes_before = claim.context.crashes - 1
        assert not told.wait(0.1)
        assert crashes() == 2
        draining.set()
        assert told.wait(5)
        wait_until("it counts no more", lambda: crashes() == 1)
        held.give_back(store, crashed=False)
    assert crashes() == 1, "the claim was taken back twice"
