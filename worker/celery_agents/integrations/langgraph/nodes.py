"""A copy of a compiled graph in which each node is a step of the execution that runs it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.constants import START
from langgraph.errors import GraphInterrupt
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import RetryPolicy

from celery_agents.define.retry import Retry
from celery_agents.engine.outcome import ExecutionUnwound
from celery_agents.errors import RegistrationError
from celery_agents.integrations.langgraph.attempt import current_attempt, unwind
from celery_agents.integrations.langgraph.speaking import writing
from celery_agents.integrations.langgraph.steps import async_run, placed, refuse_sync, take, within
from celery_agents.integrations.step_options import StepOptions

# A channel of this name says that a middleware takes the steps of the nodes below: see integrations.langchain.
MIDDLEWARE_CHANNEL: Final = "celery_agents_durability"
_OF_THE_MIDDLEWARE: Final = frozenset({"model", "tools", "HumanInTheLoopMiddleware.after_model"})

Graph = CompiledStateGraph[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """How the steps of nodes are taken: in general, by the path of a node ("node", "subgraph/node"), or not at all."""

    node: StepOptions = field(default_factory=StepOptions)
    nodes: Mapping[str, StepOptions] = field(default_factory=dict)
    inline: Collection[str] = ()
    has_thread: bool = False

    def check(self, owner: str, paths: Collection[str]) -> None:
        """Raise `RegistrationError` for nodes that there are not, and for what is no option of a node."""
        unknown = sorted({*self.nodes, *self.inline} - set(paths))
        if unknown:
            raise RegistrationError(owner, f"the graph has no nodes {unknown}; there are {sorted(paths)}")
        for path, options in {"every node": self.node, **self.nodes}.items():
            if options.requires_approval:
                raise RegistrationError(owner, f"{path}: calls of tools can be approved; a node asks with interrupt()")


def durable_copy(owner: str, graph: Graph, options: NodeOptions, path: str = "") -> tuple[Graph, set[str]]:
    """Return the copy, and the paths of all nodes. Raise `RegistrationError` for what cannot be made durable."""
    if not isinstance(graph, CompiledStateGraph):
        raise RegistrationError(
            owner,
            f"needs a compiled StateGraph (create_agent makes one), not {type(graph).__name__}: the tasks of an "
            "@entrypoint are code of one function, which takes steps with current_run().step(...)",
        )
    saver = graph.checkpointer
    if not isinstance(saver, bool | InMemorySaver | None):
        raise RegistrationError(
            owner,
            f"the graph has a checkpointer of its own, {type(saver).__name__}. The execution is the record of its run, "
            "so that two would contradict each other after a crash: compile it without one, or with a StoreSaver if "
            "durable_graph is to keep its threads",
        )
    nodes, paths = {}, set[str]()
    has_middleware = MIDDLEWARE_CHANNEL in graph.channels
    for name, node in graph.nodes.items():
        own = f"{path}{name}"
        if name == START:
            nodes[name] = node
            continue
        paths.add(own)
        bound: Runnable[Any, Any] = node.bound
        policies = tuple(node.retry_policy or graph.retry_policy or ())
        kept = {"retry_policy": policies or None}
        if isinstance(bound, CompiledStateGraph):
            if options.has_thread and bound.checkpointer is True:
                raise RegistrationError(
                    owner,
                    f"subgraph {own!r} has a thread of its own (checkpointer=True), and executions keep that of the "
                    "whole graph only: compile it without one, and keep what must last in the graph's state",
                )
            inner, more = durable_copy(owner, bound, options, f"{own}/")
            paths |= more
            nodes[name] = node.copy({"bound": DurableNode(name, inner, options=None), **kept})
        elif own in options.inline:
            nodes[name] = node.copy({"bound": DurableNode(name, bound, options=None), **kept})
        elif has_middleware and name in _OF_THE_MIDDLEWARE and own not in options.nodes:
            nodes[name] = node.copy({"bound": DurableNode(name, bound, options=None, is_place=False), **kept})
        else:
            given = options.nodes.get(own, StepOptions()).over(options.node)
            mapped = StepOptions(
                retry=_retry(policies[0]) if len(policies) == 1 else None, timeout=_timeout(owner, own, node.timeout)
            )
            nodes[name] = node.copy(
                {
                    "bound": DurableNode(name, bound, options=given.over(mapped)),
                    "retry_policy": policies if len(policies) > 1 and given.retry is None else None,
                    "timeout": None,
                    "cache_policy": None,
                }
            )
    # Of a node that is a step, the graph's own policy is the step's by now.
    return graph.copy({"nodes": nodes, "retry_policy": (), "cache": None, "cache_policy": None}), paths


def durable_nodes(
    graph: Graph,
    *,
    node: StepOptions | None = None,
    nodes: Mapping[str, StepOptions] | None = None,
    inline: Collection[str] = (),
) -> Graph:
    """Return a copy of a graph whose nodes are steps of the execution that awaits it: by `ainvoke` in an inline node.

    Parameters and errors: see `durable_graph`. For graphs that are nodes of another one this is done there.
    """
    name = graph.get_name()
    options = NodeOptions(node=node or StepOptions(), nodes=dict(nodes or {}), inline=tuple(inline))
    durable, paths = durable_copy(name, graph, options)
    options.check(name, paths)
    return durable


class DurableNode(Runnable[Any, Any]):
    """A node of which each call is a step, or whose own parts take steps (`options` is None), named by their place."""

    def __init__(
        self, name: str, bound: Runnable[Any, Any], *, options: StepOptions | None, is_place: bool = True
    ) -> None:
        self.name = name
        self._bound = bound
        self._options = options
        self._is_place = is_place

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Call the node, outside of executions. Raise `RuntimeError` in the code of an agent of ours."""
        refuse_sync(f"node {self.name!r}")
        return self._bound.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Return the recorded result of the node, which is called now if there is none."""
        run, attempt = async_run(f"node {self.name!r}"), current_attempt()
        if run is None:
            return await self._bound.ainvoke(input, config, **kwargs)
        label = self._label(config)
        try:
            with writing(config) as own:
                if self._options is None:
                    with within(label if self._is_place else ""):
                        return await self._bound.ainvoke(input, own, **kwargs)
                return await take(run, label, lambda: self._bound.ainvoke(input, own, **kwargs), self._options)
        except GraphInterrupt as raised:
            if attempt is not None:
                attempt.came_from(raised, placed(label))
            raise
        except ExecutionUnwound as stopped:
            await unwind(stopped)

    def _label(self, config: RunnableConfig | None) -> str:
        """Return the name; of a node that was sent to, with its number among what was sent at once."""
        path: Sequence[Any] = ((config or {}).get("metadata") or {}).get("langgraph_path") or ()
        is_sent = len(path) > 1 and isinstance(path[1], int)
        return f"{self.name} {path[1]}" if is_sent else str(self.name)


def _retry(policy: RetryPolicy) -> Retry:
    wanted = policy.retry_on
    kinds: tuple[type[Exception], ...] = (Exception,)
    decide: Callable[[Any], bool] | None = None
    if isinstance(wanted, type):
        kinds = (wanted,)
    elif callable(wanted):
        decide = wanted
    else:
        kinds = tuple(wanted)
    return Retry(
        retries=policy.max_attempts - 1,
        retry_on=kinds,
        retry_if=decide,
        first_delay=timedelta(seconds=policy.initial_interval),
        max_delay=timedelta(seconds=policy.max_interval),
    )


def _timeout(owner: str, path: str, policy: Any) -> timedelta | None:
    if policy is None:
        return None
    if policy.idle_timeout is not None:
        raise RegistrationError(owner, f"node {path!r}: a step has no idle_timeout, only a run_timeout")
    return timedelta(seconds=policy.run_timeout)
