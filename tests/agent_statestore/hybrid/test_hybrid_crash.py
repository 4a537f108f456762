"""Archiving by processes that are killed at each step: nothing is lost, nothing is there twice."""

import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_statestore import AgentState, Checkpoint, open_store
from agent_statestore.hybrid import HybridStore
from agent_statestore.testing.contract.removing import filled
from agent_statestore.testing.kit.builders import BOOM, GRACE
from tests.agent_statestore.hybrid.archiving_process import main
from tests.agent_statestore.hybrid.hybrid_life import digest_of, found, where
from tests.services.machine import scaled
from tests.services.redis import RedisServer

STEPS = ["export", "restore", "drop_archived"]

pytestmark = pytest.mark.crash


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.full), "servers"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A hot store that keeps every write across a crash, and a cold one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/hot.db", f"sqlite:///{tmp_path}/cold.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    return (
        f"{server.url}?completed_ttl=none&failed_ttl=none",
        request.getfixturevalue("postgresql_migrated_url"),
    )


@pytest.fixture
def store(urls: tuple[str, str]) -> Iterator[HybridStore]:
    with HybridStore(*map(open_store, urls)) as store:
        yield store


def announcing(store: HybridStore, number: int) -> str:
    """An execution that is over and whose end is to be announced yet."""
    execution_id = filled(store, idempotency_key=str(number))
    (lease,) = [lease for lease in store.find_leases("") if lease.execution_id == execution_id]
    state = (AgentState.COMPLETED, AgentState.FAILED)[number % 2]
    error = BOOM if state is AgentState.FAILED else None
    store.checkpoint(execution_id, Checkpoint(state=state, error=error, announce_within=GRACE), lease)
    return execution_id


def killed(urls: tuple[str, str], step: str, sabotage: str = "") -> None:
    """Runs a process that archives until it dies at this step."""
    process = multiprocessing.get_context("forkserver").Process(target=main, args=(*urls, step, sabotage))
    process.start()
    process.join(scaled(60))
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("step", STEPS)
def test_an_archiver_killed_at_any_step_loses_and_duplicates_nothing(
    store: HybridStore, urls: tuple[str, str], step: str
) -> None:
    made = {execution_id: digest_of(store, execution_id) for execution_id in [announcing(store, n) for n in range(3)]}
    killed(urls, step)
    assert sorted(found(store)) == sorted(made)  # whatever it left
    assert {execution_id: digest_of(store, execution_id) for execution_id in made} == made
    with HybridStore(*map(open_store, urls)) as another:
        for execution_id in made:
            another.settle(execution_id)
        another.tidy()
    assert [where(store, execution_id) for execution_id in made] == [["cold"]] * 3
    assert sorted(found(store)) == sorted(found(store.cold)) == sorted(made)
    assert {execution_id: digest_of(store.cold, execution_id) for execution_id in made} == made
    assert [
        store.create_context("agent", {"a": [1]}, idempotency_key=str(number)).execution_id for number in range(3)
    ] == list(made)


def test_a_sweep_alone_finishes_what_a_killed_archiver_began(store: HybridStore, urls: tuple[str, str]) -> None:
    execution_id = announcing(store, 0)
    before = digest_of(store, execution_id)
    killed(urls, "restore")
    assert where(store, execution_id) == ["hot", "cold"]
    store.tidy()
    assert where(store, execution_id) == ["cold"]
    assert digest_of(store, execution_id) == before


def test_letting_go_before_the_copy_is_committed_would_be_found_out(store: HybridStore, urls: tuple[str, str]) -> None:
    made = {execution_id: digest_of(store, execution_id) for execution_id in [announcing(store, n) for n in range(3)]}
    killed(urls, "drop_archived", sabotage="drop-first")
    assert len(set(made) - set(found(store))) == 1
