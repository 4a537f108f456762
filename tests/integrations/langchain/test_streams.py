"""What models say is in the stream of the execution while they say it, and recorded as it is without."""

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import BaseTool, tool

from celery_agents import Registry
from celery_agents.integrations.langchain import DurabilityMiddleware, durable_graph
from celery_agents.integrations.step_options import StepOptions
from celery_agents.testing import LocalAgents
from celery_agents.testing.llm import BreaksOff, Call, Calls, Conversation, ModelServer, Refuses, Reply, Says
from tests.integrations.langchain import models
from tests.integrations.streams import viewer_of

Serve = Callable[..., ModelServer]
PROTOCOLS = ("openai", "anthropic")


def sums(conversation: Conversation) -> Reply:
    """A model that has a sum made, and tells it."""
    if conversation.turn == 0:
        return Calls(Call("add", {"a": 1, "b": 2}), text="Let me see.")
    return Says(f"It is {conversation.results[0]}.")


def adding() -> BaseTool:
    @tool
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    return add


def start(name: str, chat: Any, registry: Registry, **options: Any) -> None:
    agent = create_agent(chat, tools=[adding()], name=name, middleware=[DurabilityMiddleware(**options)])
    durable_graph(agent, registry=registry, output=lambda state: state["messages"][-1].text)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pieces_make_up_what_is_recorded(serve: Serve, registry: Registry, local: LocalAgents, protocol: str) -> None:
    recorded, server = [], serve(model=sums)
    for name, stream in (("live", None), ("whole", False)):
        start(name, getattr(models, protocol)(server), registry, model=StepOptions(stream=stream))
        execution = local.start(name, "Sum it up.").run()
        assert execution.wait() == "It is 3."
        steps = [step for step in execution.steps() if step.action.kind == "model"]
        recorded.append([step.spent for step in steps])
        viewer = viewer_of(execution)
        if stream is False:
            assert viewer.texts() == {}
            continue
        assert viewer.texts() == {"live model": "Let me see.", "live model#2": "It is 3."}
        assert viewer.calls() == [("live model", "add", {"a": 1, "b": 2})]
    assert recorded[0] == recorded[1]
    assert all(spent["tokens"] for spent in recorded[0])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_that_breaks_off_is_tried_again_and_its_words_are_void(
    serve: Serve, registry: Registry, local: LocalAgents, protocol: str
) -> None:
    def script(conversation: Conversation) -> Reply:
        if conversation.times > 2:
            return Says("This is it.")
        error = Refuses(status=529, message="it failed", code="server_error") if conversation.times == 2 else None
        return BreaksOff(text="This is not", error=error)

    start("talker", getattr(models, protocol)(serve(model=script)), registry)
    execution = local.start("talker", "Go.").run()
    assert execution.wait() == "This is it."
    viewer = viewer_of(execution)
    assert viewer.texts() == {"talker model": "This is it."}
    assert viewer.kinds("talker model").count("try_failed") == 2
    assert "This is not" in str([event.data for event in viewer.events])
