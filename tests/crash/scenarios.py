"""What happens to the workers. Each scenario is one function, so that `test_mechanisms` can show what it guards.

Every wait is for a fact: a call in the ledger, a recorded step, a line in a log.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pytest_celery import CeleryTestSetup

from agent_statestore import AgentContext, AgentState
from celery_agents import Execution, enqueue
from celery_agents.host.recovery.duty import DUTY
from tests.crash.agents import Plan, poison
from tests.crash.scene import AgentsWorker, Scene
from tests.services.process import ServerProcess

QUEUED = 20
RUNNING = 4  # two workers with two slots each

SIX_HELD_AT_THREE = Plan(steps=6, hold=(3,))


def kill_whole_worker(scene: Scene) -> AgentContext:
    """SIGKILL of parent and children while a step is in flight."""
    return _die_in_step_three(scene, lambda worker, _pid: worker.kill())


def kill_the_one_that_sweeps(scene: Scene) -> AgentContext:
    """SIGKILL of the worker that sweeps for all, in the middle of a step. In a pool of threads, one process does both.

    The other worker, which has swept or not until then, must see that nobody sweeps any more.
    """

    def die(worker: AgentsWorker, _pid: int) -> None:
        (running,) = scene.runtime.store.find_leases("")
        left = timedelta(seconds=scene.runtime.settings.lease_seconds)
        scene.runtime.store.take_duty(DUTY, running.owner, left, instead=True)
        worker.kill()

    return _die_in_step_three(scene, die)


def kill_pool_child(scene: Scene) -> AgentContext:
    """SIGKILL of the one process that executes, as by the kernel when memory runs out."""
    return _die_in_step_three(scene, lambda worker, pid: worker.kill_child(pid))


def kill_pool_child_and_ask_celery(scene: Scene) -> AgentContext:
    """The parent has noticed the death of its child while the execution goes on elsewhere: what does Celery say?"""
    plan = SIX_HELD_AT_THREE
    execution = scene.enqueue(plan)
    first = scene.wait_for_call(execution, 3)
    worker = scene.worker_of(first)
    worker.kill_child(first.pid)
    scene.wait_for_call(execution, 3, attempt=2)
    scene.wait_for_log(worker, "its process is gone")
    status, _ = scene.told_by_celery(execution)
    assert status != "FAILURE", "a client that waits for the result is told that the execution failed"
    scene.open(execution, 3)
    return scene.finish(execution, plan, repeated={3})


def terminate_whole_group(scene: Scene) -> AgentContext:
    """SIGTERM to every process of the worker, as some supervisors send it: the children get it inside the step."""
    return _die_in_step_three(scene, lambda worker, _pid: worker.container.kill_group("SIGTERM"))


def _die_in_step_three(scene: Scene, die: Callable[[AgentsWorker, int], None]) -> AgentContext:
    plan = SIX_HELD_AT_THREE
    execution = scene.enqueue(plan)
    first = scene.wait_for_call(execution, 3)
    die(scene.worker_of(first), first.pid)
    second = scene.wait_for_call(execution, 3, attempt=2)
    assert second.pid != first.pid
    scene.open(execution, 3)
    context = scene.finish(execution, plan, repeated={3})
    assert [step.attempt for step in context.steps] == [1, 1, 2, 2, 2, 2]
    return context


def terminate_in_long_execution(scene: Scene) -> AgentContext:
    """SIGTERM in the middle: the worker ends at the step boundary, another goes on, and no step is called twice."""
    plan = Plan(steps=60, hold=(3, 4), step_seconds=0.01)
    execution = scene.enqueue(plan)
    first = scene.wait_for_call(execution, 3)
    leaving = scene.worker_of(first)
    leaving.kill("SIGTERM")
    scene.wait_for_log(leaving, "Warm shutdown")
    scene.open(execution, 3)
    second = scene.wait_for_call(execution, 4)
    assert second.worker != first.worker, "the worker went on with the execution after SIGTERM"
    assert leaving.wait_for_exit(scene.usual_patience_seconds) == 0
    assert execution.summary().step_count == 3, "the worker's end waited for more than the step in flight"
    scene.open(execution, 4)
    context = scene.finish(execution, plan)
    assert [step.attempt for step in context.steps] == [1] * 3 + [2] * 57
    return context


def freeze_until_lease_is_lost(scene: Scene) -> AgentContext:
    """SIGSTOP, a successor works, SIGCONT: the zombie's step returns and tries to go on."""
    plan = Plan(steps=6, hold=(3, 5))
    execution = scene.enqueue(plan)
    first = scene.wait_for_call(execution, 3)
    frozen = scene.worker_of(first)
    frozen.freeze()
    successor = scene.wait_for_call(execution, 3, attempt=2)
    assert successor.worker != first.worker
    scene.open(execution, 3)
    scene.wait_for_call(execution, 5, attempt=2)  # steps 3 and 4 are recorded, and the successor is in the next
    before = execution.summary()
    frozen.thaw()
    scene.wait_for_return(execution, 3, attempt=1)

    def zombie_has_stopped() -> bool:
        assert execution.summary().version == before.version, "the zombie wrote"
        return f"[{execution.id}] ignored" in frozen.logs()  # Celery's word for a task that ended without any result

    scene.wait_until(f"worker {frozen.name()} has dropped {execution.id}", zombie_has_stopped)
    scene.open(execution, 5)
    context = scene.finish(execution, plan, repeated={3})
    assert [step.attempt for step in context.steps] == [1, 1, 2, 2, 2, 2]
    assert context.attempt == 2
    return context


def stay_in_step_past_the_lease(scene: Scene) -> AgentContext:
    """A step takes longer than several leases, and nobody takes the execution away."""
    plan = SIX_HELD_AT_THREE
    execution = scene.enqueue(plan)
    scene.wait_for_call(execution, 3)
    claimed = execution.summary()
    assert claimed.lease_expires_at is not None
    lease = scene.runtime.settings.lease

    def three_leases_later() -> bool:
        summary = execution.summary()
        assert summary.attempt == 1, "a living worker's execution was taken over"
        expires_at = summary.lease_expires_at
        return expires_at is not None and expires_at > claimed.lease_expires_at + 3 * lease

    scene.wait_until(f"the lease on {execution.id} was renewed for three of its lengths", three_leases_later)
    scene.open(execution, 3)
    context = scene.finish(execution, plan)
    assert context.attempt == 1
    return context


def execute_poison(scene: Scene) -> AgentContext:
    """A step that kills its process each time is given up after `max_attempts` deaths."""
    execution = enqueue(poison, runtime=scene.runtime)
    scene.wait_until(f"{execution.id} is over", lambda: execution.state.is_over)
    context = execution.context()
    assert context.state is AgentState.FAILED
    assert context.error is not None
    assert context.error.type == "celery_agents.errors:DeadLetter", context.error
    assert len(scene.calls(execution, 1)) == 3
    assert context.steps == ()
    return context


def flush(setup: CeleryTestSetup, folder: Path) -> None:
    """Takes every message out of the broker."""
    if setup.broker.container.celeryconfig["url"].startswith("redis:"):
        setup.broker.container.client.flushall()
        return
    for message in (folder / "home" / "broker" / "messages").glob("*.msg"):
        message.unlink(missing_ok=True)


def messages_in_broker(setup: CeleryTestSetup, folder: Path) -> int:
    """How many messages wait."""
    if setup.broker.container.celeryconfig["url"].startswith("redis:"):
        return int(setup.broker.container.client.llen("celery"))
    return sum(1 for _ in (folder / "home" / "broker" / "messages").glob("*.celery.msg"))


def fill_all_slots(scene: Scene) -> tuple[Plan, list[Execution]]:
    """More executions than there are slots; those that have one stand in step 2, and wait for the test."""
    plan = Plan(steps=4, hold=(2,))
    executions = [scene.enqueue(plan) for _ in range(QUEUED)]
    scene.wait_until(
        f"{RUNNING} executions stand in step 2",
        lambda: sum(1 for execution in executions if scene.calls(execution, 2)) == RUNNING,
    )
    return plan, executions


def flush_while_some_run_and_some_wait(scene: Scene, folder: Path) -> None:
    """The broker forgets the bells of executions that nobody has claimed yet, while others are in a step."""
    plan, executions = fill_all_slots(scene)
    assert messages_in_broker(scene.setup, folder) > 0, "nothing was left to lose"
    flush(scene.setup, folder)
    assert messages_in_broker(scene.setup, folder) == 0
    for execution in executions:
        scene.open(execution, 2)
    for execution in executions:
        context = scene.finish(execution, plan)
        assert context.attempt == 1


def find_an_empty_message(scene: Scene, folder: Path) -> AgentContext:
    """A worker looks at the embedded broker's folder between the creation of a message's file and its filling."""
    message = folder / "home" / "broker" / "messages" / "0_unfinished.celery.msg"
    message.touch()
    scene.wait_until("a worker has taken the empty file", lambda: not message.exists())
    plan = Plan(steps=3)
    context = scene.finish(scene.enqueue(plan), plan)
    for worker in scene.workers:
        assert "Unrecoverable error" not in worker.logs(), f"worker {worker.name()} has ended"
    return context


def kill_store_in_step_three(
    scene: Scene, server: ServerProcess, until: Callable[[AgentsWorker], None]
) -> tuple[Execution, Plan]:
    """The step returns while the store is gone; `until` says how long that lasts."""
    plan = SIX_HELD_AT_THREE
    execution = scene.enqueue(plan)
    call = scene.wait_for_call(execution, 3)
    server.kill()
    scene.open(execution, 3)
    until(scene.worker_of(call))
    server.start()
    return execution, plan


def survive_short_outage(scene: Scene, server: ServerProcess) -> AgentContext:
    """The store comes back before the lease has run out: the attempt goes on, and no step is called twice."""
    execution, plan = kill_store_in_step_three(
        scene, server, lambda worker: scene.wait_for_log(worker, "a checkpoint could not be written, trying again")
    )
    context = scene.finish(execution, plan)
    assert context.attempt == 1, "an outage shorter than the lease took a second claim"
    return context


def survive_long_outage(scene: Scene, server: ServerProcess) -> AgentContext:
    """The store comes back after the lease has run out, and the attempt has given up."""
    execution, plan = kill_store_in_step_three(
        scene, server, lambda worker: scene.wait_for_log(worker, f"[{execution_id_in(scene)}] ignored")
    )
    return scene.finish(execution, plan, repeated={3})


def execution_id_in(scene: Scene) -> str:
    """Of the only execution."""
    return next(scene.ledger.rows()).execution_id
