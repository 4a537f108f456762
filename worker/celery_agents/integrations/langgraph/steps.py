"""A step whose function is LangGraph's or LangChain's: its value, its interrupts and what it used up are recorded."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from langgraph.config import get_config
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.types import Command, Interrupt, interrupt

from celery_agents.define.called_as import CalledAs, CalledKind
from celery_agents.engine.outcome import ExecutionUnwound
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.engine.run.current_run import current_run, spend
from celery_agents.engine.run.run import Run
from celery_agents.errors import InvalidResult, RegistrationError
from celery_agents.integrations import steps
from celery_agents.integrations.langgraph.attempt import unwind
from celery_agents.integrations.langgraph.speaking import telling
from celery_agents.integrations.langgraph.usage import collected, used_up
from celery_agents.integrations.langgraph.values import decode, encode
from celery_agents.integrations.step_options import StepOptions, refuse_group

# How often one task of a graph may interrupt.
_MOST_INTERRUPTS: Final = 1000
_OWN_GRAPH: Final = "__own__"
_NESTED: Final = (
    "a graph that it runs itself has interrupted, and would begin anew with the answer. Take no step of this node "
    "(inline=[...]) or of this tool (tools={...: False}), or make that graph a node of this one"
)

_place: Final[ContextVar[str]] = ContextVar("place", default="")


def async_run(what: str) -> AsyncRun | None:
    """Return the run of the agent whose code this is, outside of its steps; None elsewhere.

    Raise `RuntimeError` in the code of a plain agent, where nothing could be recorded.
    """
    run = current_run()
    if isinstance(run, Run):
        raise RuntimeError(
            f"{what} runs in the code of a plain agent of celery-agents, where nothing of it would be recorded: its "
            "steps would be taken in threads of the graph. Make that agent an `async def`, and await `ainvoke` in it"
        )
    return run


def refuse_sync(what: str) -> None:
    """Raise `RuntimeError` in the code of an agent of ours, where what is called by `invoke` cannot be recorded."""
    if async_run(what) is not None:
        raise RuntimeError(f"{what} is called by `invoke` in an async agent, whose loop it would hold: await `ainvoke`")


@contextmanager
def within(place: str) -> Iterator[None]:
    """Put `place`, if any, before the names of all steps that are taken in the block: a subgraph, a call of a tool.

    What runs beside it comes to its own steps in whatever order, and never to those of another place.
    """
    token = _place.set(placed(f"{place}/" if place else ""))
    try:
        yield
    finally:
        _place.reset(token)


def placed(name: str) -> str:
    """Return a name with the place where it is."""
    return f"{_place.get()}{name}"


async def take(
    run: AsyncRun,
    name: str,
    body: Callable[[], Awaitable[Any]],
    options: StepOptions,
    called_as: CalledAs | None = None,
) -> Any:
    """Return what the body returned, now or on an earlier attempt.

    An interrupt in the body, or a command for a parent graph, is what the step came to, and is raised again here: its
    id, which is another one on each attempt, is LangGraph's of now. Errors of the engine end the execution.
    """
    executed = False
    is_model = called_as is not None and called_as.kind is CalledKind.MODEL

    async def unit() -> dict[str, Any]:
        nonlocal executed
        executed = True
        with collected() as usage, telling(is_model=is_model):
            try:
                return {"returned": encode(await body())}
            except GraphInterrupt as raised:
                return {"interrupt": _as_data(name, raised)}
            except ParentCommand as raised:
                return {"command": encode(_without_own_graph(raised.args[0]))}
            finally:
                spend(**used_up(usage.usage_metadata))

    refuse_group(name, options)
    try:
        outcome = await steps.take(run, placed(name), unit, options, called_as)
    except ExecutionUnwound as stopped:
        await unwind(stopped)
    if "usage" in outcome:  # recorded before steps had it in their records
        run.spend(**used_up(outcome["usage"]))
    if "interrupt" in outcome:
        _interrupt_again(outcome["interrupt"], is_replayed=not executed)
    if "command" in outcome:
        raise ParentCommand(_with_own_graph(decode(outcome["command"])))
    return decode(outcome["returned"])


# What a call of a tool may come to that is no error of the tool's own.
WITHOUT_RESULT: Final = (*steps.OF_A_CALL, InvalidResult)


def _as_data(name: str, raised: GraphInterrupt) -> dict[str, Any]:
    """Return the interrupt with its number among those of its task, of which LangGraph makes the id."""
    namespace: str = get_config()["configurable"]["checkpoint_ns"]
    (one, *_) = raised.args[0]
    for answered in range(_MOST_INTERRUPTS):
        if Interrupt.from_ns(None, f"{namespace}|{answered}" if answered else namespace).id == one.id:
            return {"value": encode(one.value), "schema": one.response_schema, "answered": answered}
    raise RegistrationError(name, _NESTED)


def _interrupt_again(recorded: Mapping[str, Any], *, is_replayed: bool) -> None:
    """Interrupt as the body did. LangGraph has to come by the answers that the body has had, or it forgets them."""
    for _ in range(recorded["answered"] if is_replayed else 0):
        interrupt(None)
    interrupt(decode(recorded["value"]), response_schema=recorded["schema"])


def _without_own_graph(command: Command[Any]) -> Command[Any]:
    own = get_config()["configurable"]["checkpoint_ns"]
    return replace(command, graph=_OWN_GRAPH) if command.graph == own else command


def _with_own_graph(command: Command[Any]) -> Command[Any]:
    own = get_config()["configurable"]["checkpoint_ns"]
    return replace(command, graph=own) if command.graph == _OWN_GRAPH else command
