"""Workers are killed at random while many executions run."""

import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from tests.crash.agents import Plan
from tests.crash.ledger import STARTED
from tests.crash.scene import AgentsWorker, Scene
from tests.services.machine import machine

_RING = re.compile(r"^\[(\S+ \S+): .*execution (\S+) of agent \S+ goes on: ringing", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """How much of it. A run is over when all executions are.

    Only workers that are ready are killed: one that is killed before serves nobody, and nothing would ever be over. The
    seconds are those of a usual machine, and are stretched where workers take longer to start.
    """

    executions: int
    steps: int
    step_seconds: tuple[float, float]
    kill_every_seconds: tuple[float, float]
    limit_seconds: float
    seed: int


@dataclass(slots=True, kw_only=True)
class Figures:
    """What a run was like."""

    executions: int
    steps: int
    seed: int
    pace: float = 1.0
    duration_seconds: float = 0.0
    kills: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    most_attempts: int = 0
    calls: int = 0
    rung_seconds: list[float] = field(default_factory=list)
    resumed_seconds: list[float] = field(default_factory=list)

    def table(self) -> str:
        """The figures, for people."""
        rows = {
            "executions completed": f"{self.executions}",
            "steps recorded": f"{self.steps}",
            "step functions called": f"{self.calls} ({self.calls - self.steps} again after a death)",
            "kills": ", ".join(f"{count} {what}" for what, count in sorted(self.kills.items())) or "none",
            "attempts": f"{self.attempts} (at most {self.most_attempts} for one execution)",
            "interrupted executions": f"{len(self.resumed_seconds)}",
            "death to bell": _quantiles(self.rung_seconds),
            "death to next step": f"{_quantiles(self.resumed_seconds)}, behind the queue",
            "duration": f"{self.duration_seconds:.1f} s",
            "pace of the machine": f"{self.pace:.1f} times as long as usual",
            "seed": f"{self.seed}",
        }
        return "\n".join(f"  {name:<26}{value}" for name, value in rows.items())


def _quantiles(seconds: list[float]) -> str:
    ordered = sorted(seconds) or [0.0]
    p50, p95 = (ordered[min(int(part * len(ordered)), len(ordered) - 1)] for part in (0.5, 0.95))
    return f"p50 {p50:.2f} s, p95 {p95:.2f} s, max {ordered[-1]:.2f} s"


def run_chaos(scene: Scene, chaos: Chaos) -> Figures:
    """Runs it, and checks every execution."""
    dice = random.Random(chaos.seed)
    # The workers have just been started, beside whatever else this machine does now.
    pace = machine.latest
    figures = Figures(executions=chaos.executions, steps=chaos.executions * chaos.steps, seed=chaos.seed, pace=pace)
    plans = [
        Plan(steps=chaos.steps, step_seconds=pace * dice.uniform(*chaos.step_seconds), seed=f"seed {number}")
        for number in range(chaos.executions)
    ]
    started = time.monotonic()
    executions = [scene.enqueue(plan) for plan in plans]
    deaths: list[tuple[float, set[int]]] = []
    next_kill = time.monotonic() + pace * dice.uniform(*chaos.kill_every_seconds)
    waiting = dict.fromkeys(range(chaos.executions))
    while waiting:
        limit_seconds = chaos.limit_seconds * max(pace, machine.latest)
        if time.monotonic() - started > limit_seconds:
            left = [str(executions[number].summary()) for number in waiting]
            raise AssertionError(
                f"{len(left)} executions are not over after {limit_seconds:.0f} s (seed {chaos.seed})\n"
                + "\n".join(left)
                + f"\n{scene.last_words()}"
            )
        for number in list(waiting):
            if executions[number].state.is_over:
                del waiting[number]
        # Looked at each time round, so that each start is noted when it is over.
        ready = [worker for worker in scene.workers if worker.container.is_ready]
        if waiting and time.monotonic() >= next_kill:
            if ready:
                what, died = _kill_something(dice.choice(ready), dice)
                figures.kills[what] = figures.kills.get(what, 0) + 1
                deaths.append(died)
            next_kill = time.monotonic() + pace * dice.uniform(*chaos.kill_every_seconds)
        time.sleep(0.05)
    figures.duration_seconds = time.monotonic() - started
    for execution, plan in zip(executions, plans, strict=True):
        context = scene.finish(execution, plan, repeated=None, told=False)
        figures.attempts += context.attempt
        figures.most_attempts = max(figures.most_attempts, context.attempt)
    figures.calls = len(list(scene.ledger.rows(STARTED)))
    _measure_recoveries(scene, deaths, figures)
    return figures


def _kill_something(worker: AgentsWorker, dice: random.Random) -> tuple[str, tuple[float, set[int]]]:
    """Kills a whole worker (and starts it again), or one process of its pool; returns the moment and who died."""
    pids = worker.pool_pids()
    if pids and dice.random() < 0.4:
        pid = dice.choice(pids)
        at = time.time()
        worker.kill_child(pid)
        return "pool children", (at, {pid})
    at = time.time()
    died = worker.pids()
    worker.kill()
    _start_again(worker)
    return "whole workers", (at, died)


def _start_again(worker: AgentsWorker) -> None:
    """Without waiting for it: the other worker may be the next to die, and then nobody is there for a while."""
    worker.container.start_again()


def _measure_recoveries(scene: Scene, deaths: list[tuple[float, set[int]]], figures: Figures) -> None:
    """From each death to the bell, and to the next call of a step, of each execution that it interrupted."""
    calls = list(scene.ledger.rows(STARTED))
    rings = _rings(scene)
    for at, pids in deaths:
        last_calls = {row.execution_id: row for row in calls if row.at <= at}
        for execution_id, last in last_calls.items():
            later = (row for row in calls if row.execution_id == execution_id and row.at > at)
            resumed = next((row.at for row in later if row.attempt > last.attempt), None)
            if last.pid not in pids or resumed is None:
                continue
            figures.resumed_seconds.append(resumed - at)
            rung = min((moment for moment in rings[execution_id] if moment > at), default=resumed)
            figures.rung_seconds.append(min(rung, resumed) - at)


def _rings(scene: Scene) -> dict[str, list[float]]:
    """When sweepers say that they rang for an execution that had been claimed before."""
    rings: dict[str, list[float]] = defaultdict(list)
    for worker in scene.workers:
        for moment, execution_id in _RING.findall(worker.logs()):
            rings[execution_id].append(datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp())
    return rings
