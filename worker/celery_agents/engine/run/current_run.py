"""The run of the code that is executing right now, for code that is not handed it: a framework's, or a library's."""

from agent_statestore.records import require_amount
from celery_agents.define.live import SILENT, LiveStream
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.engine.run.base_run import BaseRun
from celery_agents.engine.run.run import Run
from celery_agents.engine.steps.scope import run_around


def current_run() -> Run | AsyncRun | None:
    """Return the run of the agent whose code calls this.

    None inside a step, where no step can be taken, and outside of agents. Tasks that an async agent starts have its
    run. Threads have none, unless they were given a copy of the context (`asyncio.to_thread`); no step can be taken
    there either (`StepInThread`).
    """
    run = run_around()
    if not isinstance(run, Run | AsyncRun) or run._attempt.nesting.step_around is not None:
        return None
    return run


def current_step() -> str | None:
    """Return the key of the step whose function calls this; None outside of steps, and outside of agents."""
    run = run_around()
    return run._attempt.nesting.step_around if isinstance(run, BaseRun) else None


def current_stream() -> LiveStream:
    """Return the stream of the execution whose agent, or whose step, calls this; outside of agents, one that is mute.

    For code that is not handed the run, as a framework's is.
    """
    run = run_around()
    return run.stream if isinstance(run, BaseRun) else SILENT


def spend(*, tokens: float = 0, cost: float = 0) -> None:
    """Count what was used up, wherever it happens: in an agent's code, or in a step of its, see `Run.spend`.

    For code that calls a paid service and is not handed the run. Outside of agents it counts nowhere, as in a thread
    that was not given a copy of the context: a tool has `ToolContext.spend` for that. Raise as `Run.spend` does.
    """
    run = run_around()
    if isinstance(run, BaseRun):
        run.spend(tokens=tokens, cost=cost)
    else:
        require_amount("tokens", tokens)
        require_amount("cost", cost)
