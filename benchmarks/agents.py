"""The agents that the workers execute: `AGENTS_IMPORTS=benchmarks.agents,benchmarks.tasks`."""

import time

from celery_agents import Run, agent


def moment() -> float:
    """The trivial step. Its result tells when it ran."""
    return time.time()


@agent(name="benchmarks.one")
def one(run: Run, input: None) -> None:  # noqa: A002 - the field's standard name
    """One step."""
    del input
    run.step("moment", moment)


@agent(name="benchmarks.ten")
def ten(run: Run, input: None) -> None:  # noqa: A002
    """Ten steps."""
    del input
    for _ in range(10):
        run.step("moment", moment)
