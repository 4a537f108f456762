"""What executions that wait for a person take up in a store."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agent_statestore import NewExecution, open_store
from benchmarks.executing import LEASE, payload
from benchmarks.scaling.calibration import StoreServer
from celery_agents.decorators import agent
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.engine.run.run import Run
from celery_agents.lifecycle.assembly import make_executor

STEPS: Final = 5
STEP_BYTES: Final = 500
_AGENT: Final = "benchmarks.waits"
_LOOKS: Final = 20
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Paused:
    """Bytes that the store's server keeps for each, and seconds of a look for what is due, before and with them."""

    bytes_each: float
    look_before: float
    look_with: float


def pause(url: str, server: StoreServer, count: int) -> Paused:
    """Bring so many executions to a question after `STEPS` recorded steps, and leave them there."""
    registry = Registry()
    output = payload(STEP_BYTES)

    @agent(name=_AGENT, registry=registry)
    def waits(run: Run, input: None) -> None:  # noqa: A002 - the field's standard name
        del input
        for _ in range(STEPS):
            run.step("step", lambda: output)
        run.ask("Go on?")

    with open_store(url) as store:
        executor = make_executor(store=store, registry=registry, limits=Defaults(lease=LEASE))

        def add_one() -> None:
            execution_id = store.create(NewExecution(agent_id=_AGENT, input=None)).execution_id
            outcome = executor.execute(execution_id, "benchmark/1/0")
            if outcome is None or outcome.ending is not Ending.PAUSED:
                raise RuntimeError(f"it does not pause: {outcome}")

        def look() -> float:
            started = time.perf_counter()
            for _ in range(_LOOKS):
                if store.take_due(1, timedelta(seconds=1)):
                    raise RuntimeError("a paused execution is due, though it waits without a deadline")
            return (time.perf_counter() - started) / _LOOKS

        add_one()  # loads scripts, makes the first pages of tables
        look()
        look_before, size_before = look(), server.size_bytes()
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # so that they share the flushes of the log
            for added in [pool.submit(add_one) for _ in range(count)]:
                added.result()
        return Paused((server.size_bytes() - size_before) / count, look_before, look())
