"""`durable_graph`: a compiled graph of LangGraph as an agent of ours, whose executions can be started."""

import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

import pydantic
from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.graph.message import add_messages
from langgraph.types import Command

from celery_agents.decorators import Agent
from celery_agents.decorators import agent as make_agent
from celery_agents.define.names import step_name
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import RegistrationError
from celery_agents.integrations.langgraph.attempt import GraphAttempt
from celery_agents.integrations.langgraph.nodes import Graph, NodeOptions, durable_copy
from celery_agents.integrations.langgraph.people import answers
from celery_agents.integrations.langgraph.saver import StoreSaver
from celery_agents.integrations.langgraph.tools import schemas_of_tools
from celery_agents.integrations.langgraph.turn import AttemptSaver, ThreadTurn
from celery_agents.integrations.langgraph.values import as_json
from celery_agents.integrations.made import made
from celery_agents.integrations.step_options import StepOptions

_MESSAGE_IDS: Final = uuid.UUID("0197a1a4-5d1c-7c61-9b61-3f5a8c0f7a12")
_MESSAGES: Final = "messages"


def durable_graph(
    graph: Graph,
    *,
    name: str | None = None,
    context: Callable[..., Any] | None = None,
    output: Callable[[Any], Any] | None = None,
    node: StepOptions | None = None,
    nodes: Mapping[str, StepOptions] | None = None,
    inline: Collection[str] = (),
    answer_timeout: timedelta | None = None,
    thread: Callable[[AsyncRun], str] | None = None,
    **options: Any,
) -> Agent:
    """Register a compiled graph as an agent, and return what starts executions of it.

    The input of an execution is that of the graph, as JSON, with messages as `{"role": "user", "content": "..."}`; a
    graph with messages takes a plain text, too. The output is the graph's, as JSON, or what `output` makes of it.

    Each node is a step. Those of a graph with `DurabilityMiddleware` that call models and tools are none, for each
    call is one. `node` are the options of all steps, `nodes` those of one, by its name; one in a subgraph is
    "subgraph/node". Nodes in `inline` are code of the agent: they run again on each attempt, and take steps themselves.

    An `interrupt` pauses the execution until it is answered, with `answer_timeout` at the longest (a question then
    fails the execution, an approval is refused); by default for ever.

    A graph that is compiled with a `StoreSaver` has threads that last: an execution goes on from where the one before
    has ended, as a chat does. The thread is that of the session, or what `thread` returns for the run; an execution
    without either has one of its own. An execution holds its thread from its beginning until it is over, and a second
    one fails with `NamespaceHeld` before a node is called. What the graph came to is stored once, when it has ended: of
    an execution that fails or is cancelled, the thread has nothing.

    `context` makes the graph's context, on each attempt: it never enters the store. It is called without arguments, or
    with the `AsyncRun` if it takes one, and may be async. `name` is the graph's own if not given. `options` are those
    of `@agent`: `queue`, `max_steps`, `max_cost`, `deadline` and so on.

    Raise `RegistrationError` for a graph without a name, with a checkpointer that keeps its state elsewhere, or that
    needs a context and has none, for nodes that there are not, and for `thread` without a `StoreSaver`.
    """
    own = name or getattr(graph, "name", None) or ""
    if own in ("", "LangGraph"):  # what LangGraph calls a graph without a name
        raise RegistrationError("durable_graph", "the graph needs a name: durable_graph(graph, name=...)")
    kept = getattr(graph, "checkpointer", None)
    saver = kept if isinstance(kept, StoreSaver) else None
    if saver is not None:
        graph = graph.copy({"checkpointer": None})
    elif thread is not None:
        raise RegistrationError(own, "only a graph that is compiled with a StoreSaver has threads")
    chosen = NodeOptions(
        node=node or StepOptions(), nodes=dict(nodes or {}), inline=tuple(inline), has_thread=saver is not None
    )
    durable, paths = durable_copy(own, graph, chosen)
    chosen.check(own, paths)
    schemas = schemas_of_tools(graph)
    if context is None and graph.context_schema is not None and graph.context_schema is not type(None):
        raise RegistrationError(own, "the graph has a context: durable_graph(graph, context=factory)")

    async def execute(run: AsyncRun, input: Any) -> Any:  # noqa: A002 - the field's standard name
        given: Any = _as_state(durable, input, run.execution_id)
        # It keeps what one attempt needs of its own past; every attempt comes to it anew, by the recorded steps.
        memory = AttemptSaver()
        running = durable.copy({"checkpointer": memory})
        made_context = None if context is None else await made(context, run)
        turn = None if saver is None else await ThreadTurn.begin(run, saver, durable, memory, thread)
        thread_id = run.execution_id if turn is None else turn.thread_id
        config: Any = {"configurable": {"thread_id": thread_id}}
        while True:
            attempt = GraphAttempt()
            result = await attempt.run(
                running.ainvoke(given, config, context=made_context, version="v2", durability="sync")
            )
            if result.interrupts:
                given = Command(resume=await answers(run, attempt, result.interrupts, answer_timeout, schemas))
                continue
            before = await _breakpoint(running, config)
            if not before:
                break
            asked = {"next": list(before)}
            await run.ask(asked, timeout=answer_timeout, name=step_name(f"ask before {', '.join(before)}"))
            given = None
        if turn is not None:
            await turn.end()
        return as_json(result.value if output is None else output(result.value))

    execute.__doc__ = f"The graph {own} of LangGraph."
    execute.__annotations__ |= {"input": _type_of_input(graph), "return": Any}
    return make_agent(name=own, **options)(execute)


async def _breakpoint(graph: Graph, config: Any) -> tuple[str, ...]:
    """Return before which nodes the graph stands that was compiled with `interrupt_before` or `interrupt_after`."""
    if not graph.interrupt_before_nodes and not graph.interrupt_after_nodes:
        return ()
    return (await graph.aget_state(config)).next


def _fields(graph: Graph) -> set[str]:
    return set(graph.builder.schemas[graph.builder.input_schema])


def _has_messages(graph: Graph) -> bool:
    return _MESSAGES in _fields(graph) and getattr(graph.channels[_MESSAGES], "operator", None) is add_messages


def _type_of_input(graph: Graph) -> Any:
    """Return the type that inputs are held against where they are given."""
    fields = _fields(graph)
    if "__root__" in fields:
        return Any

    def check(value: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(value) - fields)
        if unknown:
            raise ValueError(f"the graph's input has no fields {unknown}; there are {sorted(fields)}")
        if _has_messages(graph) and _MESSAGES in value:
            convert_to_messages(_listed(value[_MESSAGES]))
        return value

    state = Annotated[dict[str, Any], pydantic.AfterValidator(check)]
    return str | state if _has_messages(graph) else state


def _listed(messages: Any) -> list[Any]:
    return messages if isinstance(messages, list) else [messages]


def _as_state(graph: Graph, value: Any, execution_id: str) -> Any:
    """Return the graph's input. Its messages get ids that are the same on each attempt."""
    if isinstance(value, str) and _has_messages(graph):
        value = {_MESSAGES: [{"role": "user", "content": value}]}
    if not isinstance(value, dict) or not _has_messages(graph) or _MESSAGES not in value:
        return value
    messages = convert_to_messages(_listed(value[_MESSAGES]))
    return {**value, _MESSAGES: [_with_id(one, f"{execution_id}/{at}") for at, one in enumerate(messages)]}


def _with_id(message: BaseMessage, source: str) -> BaseMessage:
    return message if message.id else message.model_copy(update={"id": str(uuid.uuid5(_MESSAGE_IDS, source))})
