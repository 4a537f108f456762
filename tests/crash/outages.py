"""The store goes away in the middle of many executions, and comes back."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from agent_statestore import AgentContext
from tests.crash.agents import Plan
from tests.crash.ledger import STARTED
from tests.crash.scene import AgentsWorker, Scene
from tests.services.commands import wait_until
from tests.services.machine import scaled
from tests.services.process import ServerProcess
from tests.services.redis_cluster import RedisCluster
from tests.services.redis_sentinel import RedisSentinel

EXECUTIONS: Final = 50
STEPS: Final = 4
STEP_SECONDS: Final = 0.08

# What a worker may say of one execution in one outage: that it waits for the store, and that it waited in vain.
SAID_OF_AN_EXECUTION: Final = 2

# An outage longer than the lease frees slots, which take bells from the queue that lead to nothing.
SAID_OF_BELLS: Final = 2 * EXECUTIONS

# What a worker's three processes may say of one outage besides: the parent that the sweep, the watches for dead
# processes and for cancelled executions, and the tidying fail, each of the others that the renewal of leases and
# claiming do; or each that the archive is away, and there again.
SAID_OF_AN_OUTAGE: Final = 4 + 2 * 2

_COMPLAINT: Final = re.compile(r"^\[[^]]+: (?:WARNING|ERROR|CRITICAL)/[^]]+\] (.*)$", re.MULTILINE)
_EXECUTION: Final = re.compile(r"\bexecution ([0-9a-f-]{36})\b")


def survive_outages(
    scene: Scene, outages: Sequence[Callable[[], None]], *, repeats: bool = False
) -> list[AgentContext]:
    """Runs many executions, and each outage once its share of the steps was called; checks every execution.

    All complete, and what is recorded is neither lost nor repeated: as long as an outage is shorter than the lease no
    step is called twice at all. With `repeats` leases may be lost; then a step that was in flight, and not recorded, is
    called again by the next attempt, and no other.
    """
    plans = [Plan(steps=STEPS, step_seconds=STEP_SECONDS, seed=f"seed {number}") for number in range(EXECUTIONS)]
    executions = [scene.enqueue(plan) for plan in plans]
    for number, outage in enumerate(outages, start=1):
        wait_for_calls(scene, EXECUTIONS * STEPS * number // (len(outages) + 1))
        assert any(execution.summary().owner for execution in executions), "nothing is in flight"
        outage()
    return [
        scene.finish(execution, plan, repeated=None if repeats else ())
        for execution, plan in zip(executions, plans, strict=True)
    ]


def wait_for_calls(scene: Scene, count: int) -> None:
    """Returns once this many steps were called, by whomever."""
    scene.wait_until(f"{count} steps were called", lambda: sum(1 for _ in scene.ledger.rows(STARTED)) >= count)


def kill_and_start(server: ServerProcess, *, down_seconds: float) -> Callable[[], None]:
    """An outage: kill -9, and a start after a while, which keeps its proportion to the leases."""

    def outage() -> None:
        server.kill()
        time.sleep(scaled(down_seconds))
        server.start()

    return outage


def fail_over_cluster(cluster: RedisCluster) -> Callable[[], None]:
    """An outage: a master is killed, its replica takes over, and the killed one comes back as the replica."""

    def outage() -> None:
        killed = cluster.kill_master_of("any key")
        cluster.wait_until_healthy()
        cluster.restart(killed)
        cluster.wait_until_healthy()

    return outage


def fail_over_sentinel(sentinel: RedisSentinel) -> Callable[[], None]:
    """An outage: the master is killed, the sentinels promote its replica, and the killed one comes back as replica."""

    def outage() -> None:
        killed = sentinel.kill_master()
        wait_until("a replica is promoted", lambda: sentinel.master is not killed)
        killed.start()
        sentinel.wait_until_healthy()

    return outage


def check_log(worker: AgentsWorker, *, outages: int) -> None:
    """A worker's log says what happened, without tracebacks and in few lines, however long an outage is."""
    check_lines(worker.logs(), f"worker {worker.name()}", outages=outages)


def check_lines(log: str, about: str, *, outages: int) -> None:
    """`check_log`, of the text of a log."""
    assert "Traceback" not in log, f"{about} shows a traceback:\n{log}"
    complaints = _COMPLAINT.findall(log)
    assert any("is not available" in line for line in complaints), f"{about} says nothing of the outage:\n{log}"
    bells_in_vain = [line for line in complaints if "is left to later" in line]
    assert len(bells_in_vain) <= SAID_OF_BELLS * outages, f"{about} repeats itself:\n{log}"
    said_of: dict[str, list[str]] = defaultdict(list)
    for line in complaints:
        if line not in bells_in_vain:
            found = _EXECUTION.search(line)
            said_of["" if found is None else found[1]].append(line)
    for execution_id, lines in said_of.items():
        limit = (SAID_OF_AN_EXECUTION if execution_id else SAID_OF_AN_OUTAGE) * outages
        assert len(lines) <= limit, "\n".join([f"{about} repeats itself:", *lines])
