"""`watch`: a client wakes when something has changed, and never waits longer than it said."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.contract.watch import Watch
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import TTL, cancel, create, event, message, summary_of
from agent_statestore.testing.kit.stories import export_of
from agent_statestore.testing.kit.suite import Suite

PATIENCE_SECONDS = 10.0
SLACK_SECONDS = 2.0
MOMENT_SECONDS = 0.01  # so that the watcher already waits when the change comes

Change = Callable[[Store, str], object]

CHANGES: dict[str, Change] = {
    "checkpoint": lambda store, execution_id: store.checkpoint(execution_id, Checkpoint(messages=(message("x"),))),
    "end": lambda store, execution_id: store.update_state(execution_id, AgentState.COMPLETED),
    "claim": lambda store, execution_id: store.claim(execution_id, "host:1", TTL),
    "event": lambda store, execution_id: store.send(execution_id, event()),
    "cancel": lambda store, execution_id: store.send(execution_id, cancel()),
    "delete": lambda store, execution_id: store.delete_context(execution_id),
    "purge": lambda store, execution_id: store.purge(execution_id),
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def wait_until(watch: Watch, has_come: Callable[[], bool]) -> None:
    """Wait as a client does: look, and look again after each wake."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not has_come():
        assert watch.wait(PATIENCE_SECONDS), "nobody woke the watcher"
        assert time.monotonic() < give_up_at, "the watcher was not woken in time"


def slowly(change: Change, store: Store, execution_id: str) -> None:
    """Make the change a moment later."""
    time.sleep(MOMENT_SECONDS)
    change(store, execution_id)


class WatchingConformance(Suite):
    """Watches."""

    @every_change
    def test_a_change_from_another_thread_wakes(self, store: Store, change: Change) -> None:
        execution_id = create(store)
        before = store.export(execution_id)
        with store.watch(execution_id) as watch, ThreadPoolExecutor(1) as pool:
            changing = pool.submit(slowly, change, store, execution_id)
            wait_until(watch, lambda: store.export(execution_id) != before)
            changing.result()

    @every_change
    def test_a_change_before_the_waiting_begins_is_not_missed(self, store: Store, change: Change) -> None:
        execution_id = create(store)
        with store.watch(execution_id) as watch:
            change(store, execution_id)
            began = time.monotonic()
            assert watch.wait(PATIENCE_SECONDS) is True
            assert time.monotonic() - began < SLACK_SECONDS

    @pytest.mark.parametrize("known", [False, True])
    def test_a_restored_execution_wakes(self, store: Store, other_store: Store, known: bool) -> None:
        execution_id = create(other_store)
        if known:
            store.restore(export_of(other_store, execution_id))
        other_store.add_message(execution_id, "user", "newer")
        newer = export_of(other_store, execution_id)
        with store.watch(execution_id) as watch, ThreadPoolExecutor(1) as pool:
            restoring = pool.submit(slowly, lambda into, _: into.restore(newer), store, execution_id)
            wait_until(watch, lambda: store.export(execution_id) == newer)
            restoring.result()

    def test_every_change_of_a_series_wakes(self, store: Store) -> None:
        execution_id = create(store)
        with store.watch(execution_id) as watch, ThreadPoolExecutor(1) as pool:
            for version in range(1, 6):
                changing = pool.submit(slowly, CHANGES["checkpoint"], store, execution_id)
                wait_until(watch, lambda: summary_of(store, execution_id).version == version)  # noqa: B023
                changing.result()
                watch.progress()

    def test_several_watchers_are_all_woken(self, store: Store) -> None:
        execution_id = create(store)

        def look() -> bool:
            with store.watch(execution_id) as watch:
                wait_until(watch, lambda: summary_of(store, execution_id).cancel_requested)
            return True

        with ThreadPoolExecutor(3) as pool:
            looking = [pool.submit(look) for _ in range(3)]
            slowly(CHANGES["cancel"], store, execution_id)
            assert [each.result(PATIENCE_SECONDS) for each in looking] == [True] * 3

    def test_two_watches_of_one_thread_see_their_own_executions(self, store: Store) -> None:
        made = [create(store) for _ in range(2)]
        with store.watch(made[0]) as one, store.watch(made[1]) as another:
            for execution_id, watch in zip(made, (one, another), strict=True):
                store.send(execution_id, cancel())
                wait_until(watch, lambda: summary_of(store, execution_id).cancel_requested)  # noqa: B023

    @pytest.mark.parametrize("situation", ["unknown", "new", "changed"])
    def test_a_wait_ends_with_its_timeout_and_not_at_once(self, store: Store, situation: str) -> None:
        execution_id = "unknown" if situation == "unknown" else create(store)
        with store.watch(execution_id) as watch:
            if situation == "changed":
                store.send(execution_id, cancel())
                assert watch.wait(PATIENCE_SECONDS) is True
                watch.progress()
            for timeout_seconds, at_least_seconds in ((0.0, 0.0), (0.02, 0.03)):
                began = time.monotonic()
                for _ in range(4):
                    watch.wait(timeout_seconds)
                elapsed = time.monotonic() - began
                assert at_least_seconds <= elapsed < 4 * timeout_seconds + SLACK_SECONDS

    def test_closing_twice_is_harmless(self, store: Store) -> None:
        watch = store.watch(create(store))
        watch.close()
        watch.close()
        with store.watch(create(store)) as watch:
            watch.wait(0.0)
        watch.close()

    def test_closed_watches_hold_nothing(self, store: Store) -> None:
        execution_id = create(store)
        for _ in range(40):
            with store.watch(execution_id) as watch:
                watch.wait(0.0)
        store.send(execution_id, cancel())
        assert summary_of(store, execution_id).cancel_requested
