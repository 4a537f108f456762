"""The agents that the workers execute: `AGENTS_IMPORTS=benchmarks.agents,benchmarks.tasks`."""

import time

from benchmarks.tasks import tell
from celery_agents import Run, agent


def moment() -> float:
    """Take the time, as the trivial step. The result tells when it ran."""
    return time.time()


@agent(name="benchmarks.none")
def none(run: Run, input: None) -> None:  # noqa: A002 - the field's standard name
    """Take no step."""
    del run, input


@agent(name="benchmarks.one")
def one(run: Run, input: None) -> None:  # noqa: A002
    """Take one step."""
    del input
    run.step("moment", moment)


@agent(name="benchmarks.ten")
def ten(run: Run, input: None) -> None:  # noqa: A002
    """Take ten steps."""
    del input
    for _ in range(10):
        run.step("moment", moment)


@agent(name="benchmarks.late")
def late(run: Run, input: tuple[str, str, float]) -> None:  # noqa: A002
    """Tell, in the first step, how many seconds after it was sent that begins."""
    run.step("tell", tell, *input)
