"""Takes steps for what a framework calls, and knows which errors are a step's and which end the execution."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from agent_statestore.errors import NotSerialisable, ValueTooLarge
from celery_agents.define.called_as import CalledAs
from celery_agents.define.names import step_name
from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.engine.run.current_run import current_run, spend
from celery_agents.errors import AgentsError, InvalidResult, StepFailed, StepInterrupted, StepTimeout
from celery_agents.integrations.feeding import fed
from celery_agents.integrations.step_options import StepOptions

# What a step itself ended with. Every other error of ours says that the execution cannot go on.
_OF_A_STEP: Final = (
    StepFailed,
    StepTimeout,
    StepInterrupted,
    CallInterrupted,
    InvalidResult,
    ValueTooLarge,
    NotSerialisable,
)
# Of these, what a model is told as the result of its call.
OF_A_CALL: Final = (StepTimeout, StepInterrupted, ValueTooLarge, NotSerialisable)


def durable_run() -> AsyncRun | None:
    """Return the run whose code calls this; None inside steps, outside of executions, and in plain agents."""
    run = current_run()
    return run if isinstance(run, AsyncRun) else None


async def take(
    run: AsyncRun,
    name: str,
    unit: Callable[[], Awaitable[Any]],
    options: StepOptions,
    called_as: CalledAs | None = None,
    used: Callable[[Any], Mapping[str, float]] | None = None,
) -> Any:
    """Return the recorded result of the unit, which is made now if there is none. The result is JSON.

    `used` returns what a result has used up, as `spend` takes it; it is recorded with the step.

    Raise what the unit raised. An error of the engine ends the execution instead: a framework would tell it to the
    model, and go on.
    """
    taken = run.options(
        returns=Any,
        retry=options.retry,
        timeout=options.timeout,
        on_crash=options.on_crash,
        called_as=called_as,
        group=options.group,
    )
    name, journal = step_name(name), run._attempt.journal
    key = journal.upcoming_key(name)
    executed = False

    async def spending() -> Any:
        nonlocal executed
        executed = True
        with fed(options.stream):
            result = await unit()
        if used is not None:
            spend(**used(result))
        return result

    try:
        result = await taken.step(name, spending)
        if used is not None and not executed and not journal.step(key).spent:
            # Recorded before steps had it in their records: it is counted by the code, as it was then.
            run.spend(**used(result))
        return result
    except AgentsError as error:
        if isinstance(error, _OF_A_STEP):
            raise
        run.fail(error)


def told(error: Exception) -> str:
    """Return what a model is told of a call of a tool that came to no result: one of `OF_A_CALL`."""
    if isinstance(error, StepTimeout):
        return f"Timed out after {error.seconds:g} seconds."
    if isinstance(error, StepInterrupted):
        return "The call was interrupted, and whether it took effect is not known."
    return f"The result cannot be kept: {error}"
