"""What the chat models in a node say, and what the node writes, is in the stream of the execution."""

from collections.abc import Callable
from typing import Any, TypedDict

from langchain_core.language_models import FakeListChatModel
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from celery_agents import Registry
from celery_agents.integrations.langgraph import durable_graph
from celery_agents.integrations.step_options import StepOptions
from celery_agents.testing import LocalAgents
from celery_agents.testing.llm import ModelServer, Says
from tests.integrations.langchain.models import openai
from tests.integrations.streams import viewer_of

Serve = Callable[..., ModelServer]


class State(TypedDict, total=False):
    """What the graph comes to."""

    first: str
    second: str
    third: str


def test_models_in_nodes_and_writers_are_heard(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    model = openai(serve(model=lambda conversation: Says(f"Said to {conversation.prompt}: much.")), stream_usage=True)

    async def first(state: State) -> dict[str, Any]:
        get_stream_writer()({"at": "first"})
        return {"first": (await model.ainvoke("one")).text}

    def second(state: State) -> dict[str, Any]:
        """In a thread, and two calls of models."""
        get_stream_writer()("second")
        return {"second": model.invoke("two").text + FakeListChatModel(responses=[" And more."]).invoke("three").text}

    async def third(state: State) -> dict[str, Any]:
        return {"third": (await model.with_config(tags=["nostream"]).ainvoke("three")).text}

    graph = StateGraph(State)
    for node in (first, second, third):
        graph.add_node(node.__name__, node)  # type: ignore[type-var]
        graph.add_edge(START, node.__name__)
    for name, stream in (("live", True), ("whole", None)):
        durable_graph(graph.compile(name=name), node=StepOptions(stream=stream), registry=registry)
        execution = local.start(name, {}).run()
        output = execution.wait()
        viewer = viewer_of(execution)
        emitted = {event.step: event.data["value"] for event in viewer.events if event.kind == "emitted"}
        assert emitted == {"first": {"at": "first"}, "second": "second"}, name
        assert viewer.texts() == ({"first": output["first"], "second": output["second"]} if stream else {}), name
        assert all(step.spent["tokens"] for step in execution.steps())
