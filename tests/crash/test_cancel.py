"""A cancel on real workers, whatever the execution does: it is over within seconds, and nothing of it goes on."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from agent_statestore import AgentState
from celery_agents import Execution, ExecutionCancelled, enqueue
from tests.crash.cancelled import BUSY, INTERRUPTED, MOST_IN_PLACE_SECONDS, Doing, brief, cancelled, cancelled_async
from tests.crash.ledger import STARTED
from tests.crash.scene import Cell, Scene

LEASE_SECONDS: Final = 3.0
# Executing processes hear of a cancel when they renew their leases, three times in the length of one.
SOON_SECONDS: Final = LEASE_SECONDS / 3 + 4.0

pytestmark = pytest.mark.worker(
    imports=["tests.crash.cancelled"], lease_seconds=LEASE_SECONDS, inline_wait_seconds=MOST_IN_PLACE_SECONDS
)

THREADS: Final = Cell("embedded", "sqlite", "threads")
PREFORK: Final = Cell("redis", "redis", "prefork")
# What interrupts a function differs between threads and processes. The rest is the same in both.
BOTH: Final = [THREADS, PREFORK]
ONE: Final = [pytest.param(THREADS, marks=pytest.mark.full), PREFORK]
# So many slots has each worker: one may be sent as many executions, and keep what it is sent beyond that.
AT_ONCE: Final = 2


def start(scene: Scene, doing: Doing) -> Execution:
    """An execution that does it now."""
    execution = enqueue(cancelled_async if doing is Doing.ASYNC_AGENT else cancelled, doing, runtime=scene.runtime)
    calls = 2 if doing is Doing.PARALLEL else 1
    scene.wait_until(f"{doing} has begun", lambda: len(scene.calls(execution, 1)) == calls)
    if doing not in BUSY:
        scene.wait_until(f"it pauses in {doing}", lambda: execution.summary().waiting is not None)
        scene.wait_until(f"it is paused in {doing}", lambda: execution.summary().owner is None)
    return execution


def check_cancelled(scene: Scene, execution: Execution, about: str, calls: int) -> None:
    """Raises AssertionError unless it is cancelled soon, for everybody, and no function was called but these."""
    scene.wait_until(f"{about}: cancelled", lambda: execution.state is AgentState.CANCELLED, SOON_SECONDS)
    scene.wait_until(f"{about}: told", lambda: scene.told_by_celery(execution)[0] == "REVOKED", SOON_SECONDS)
    scene.wait_until(f"{about}: announced", lambda: execution.summary().due_at is None, SOON_SECONDS)
    with pytest.raises(ExecutionCancelled):
        execution.wait()
    assert execution.summary().owner is None, f"{about}: its lease is still held"
    assert sum(1 for _ in scene.ledger.rows(STARTED, execution.id)) == calls, f"{about}: it went on"


@pytest.mark.parametrize("cell", BOTH, ids=str, indirect=True)
def test_a_cancel_ends_what_is_being_done_within_seconds(scene: Scene) -> None:
    for first in range(0, len(BUSY), AT_ONCE):
        some = BUSY[first : first + AT_ONCE]
        executions = {doing: start(scene, doing) for doing in some}
        for doing, execution in executions.items():
            assert execution.cancel(sender="a test"), doing
        held = executions.get(Doing.STEP)
        for doing, execution in executions.items():
            if execution is not held:
                check_cancelled(scene, execution, doing, calls=2 if doing is Doing.PARALLEL else 1)
            if doing in (Doing.ASYNC_STEP, Doing.ASYNC_AGENT, Doing.PARALLEL):
                calls = sum(1 for _ in scene.ledger.rows(STARTED, execution.id))
                assert sum(1 for _ in scene.ledger.rows(INTERRUPTED, execution.id)) == calls, f"{doing} goes on"
        if held is not None:
            assert not held.state.is_over, "a plain function cannot be interrupted"
            scene.open(held, 1)
            check_cancelled(scene, held, Doing.STEP, calls=1)


@pytest.mark.parametrize("cell", ONE, ids=str, indirect=True)
def test_a_cancel_ends_a_pause_at_once_and_the_children_too(scene: Scene) -> None:
    paused = [doing for doing in Doing if doing not in BUSY]
    executions = {doing: start(scene, doing) for doing in paused}
    parent = executions[Doing.CHILD]
    children = [
        Execution(step.result.output["execution_id"], scene.runtime)
        for step in parent.steps()
        if step.action.kind == "spawn" and step.result is not None
    ]
    scene.wait_until("the first child is in its step", lambda: len(scene.calls(children[0], 1)) == 1)
    scene.wait_until("the second child is paused", lambda: children[1].question is not None)
    for doing, execution in executions.items():
        assert execution.cancel(), doing
        assert execution.state is AgentState.CANCELLED, f"{doing}: it was not cancelled when the call returned"
    for doing, execution in executions.items():
        check_cancelled(scene, execution, doing, calls=1)
    for child in children:
        check_cancelled(scene, child, "a child", calls=1)


@pytest.mark.parametrize("cell", ONE, ids=str, indirect=True)
def test_a_cancel_before_the_start_and_after_the_end(scene: Scene) -> None:
    ended = enqueue(brief, runtime=scene.runtime)
    assert ended.wait(scene.patience_seconds) == "done"
    scene.wait_until("its end is told", lambda: scene.told_by_celery(ended)[0] == "SUCCESS")
    scene.wait_until("its end is announced", lambda: ended.summary().due_at is None)
    before = ended.summary()
    assert not ended.cancel()
    assert ended.summary() == before, "the cancel changed what was over"
    assert scene.told_by_celery(ended)[0] == "SUCCESS"

    later = enqueue(brief, start_at=datetime.now(UTC) + timedelta(hours=1), runtime=scene.runtime)
    for worker in scene.workers:
        worker.freeze()
    queued = enqueue(brief, runtime=scene.runtime)
    for execution in (later, queued):
        assert execution.cancel()
        assert execution.state is AgentState.CANCELLED
        assert not execution.cancel(), "it was cancelled already"
    for worker in scene.workers:
        worker.thaw()
    for execution in (later, queued):
        check_cancelled(scene, execution, "not begun", calls=0)
        assert execution.summary().attempt == 0


@pytest.mark.parametrize("cell", ONE, ids=str, indirect=True)
def test_a_cancel_that_its_worker_does_not_live_to_see(scene: Scene) -> None:
    execution = start(scene, Doing.STEP)
    call = scene.calls(execution, 1)[0]
    scene.worker_of(call).freeze()
    assert execution.cancel()
    assert not execution.state.is_over
    scene.worker_of(call).kill()
    check_cancelled(scene, execution, "its worker is dead", calls=1)
