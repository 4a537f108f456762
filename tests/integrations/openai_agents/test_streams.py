"""What models say is in the stream of the execution while they say it, and recorded as it is without."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.items import ModelResponse, TResponseStreamEvent
from agents.models.interface import Model

from celery_agents import Registry
from celery_agents.integrations.openai_agents import DurableRunner, durable
from celery_agents.integrations.step_options import StepOptions
from celery_agents.testing import LocalAgents
from celery_agents.testing.llm import BreaksOff, Call, Calls, Conversation, ModelServer, Refuses, Reply, Says
from tests.integrations.openai_agents.models import Models
from tests.integrations.streams import viewer_of

Serve = Callable[..., ModelServer]
PROTOCOLS = ("responses", "chat")


def sums(conversation: Conversation) -> Reply:
    """A model that has a sum made, and tells it."""
    if conversation.turn == 0:
        return Calls(Call("add", {"a": 1, "b": 2}), text="Let me see.")
    return Says(f"It is {conversation.results[0]}.")


@function_tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pieces_make_up_what_is_recorded(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, protocol: str
) -> None:
    recorded, server = [], serve(model=sums)
    for name, stream in (("live", None), ("whole", False)):
        runner = DurableRunner(model=StepOptions(stream=stream))
        agent = Agent(name=name, model=getattr(models, protocol)(server), tools=[add])
        durable(agent, runner=runner, registry=registry)
        execution = local.start(name, "Sum it up.").run()
        assert execution.wait() == "It is 3."
        steps = [step for step in execution.steps() if step.action.kind == "model"]
        recorded.append([(step.result.output if step.result else None, step.spent) for step in steps])
        viewer = viewer_of(execution)
        if stream is False:
            assert viewer.texts() == {}
            continue
        assert viewer.texts() == {"live model": "Let me see.", "live model#2": "It is 3."}
        assert viewer.calls() == [("live model", "add", {"a": 1, "b": 2})]
    for (one, spent), (other, spent_whole) in zip(*recorded, strict=True):
        assert spent == spent_whole
        assert {key: (one[key], other.get(key)) for key in one if one[key] != other.get(key)} == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_answer_that_breaks_off_is_tried_again_and_its_words_are_void(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, protocol: str, is_streamed: bool
) -> None:
    def script(conversation: Conversation) -> Reply:
        if conversation.times > 2:
            return Says("This is it.")
        error = Refuses(status=500, message="it failed", code="server_error") if conversation.times == 2 else None
        return BreaksOff(text="This is not", error=error)

    seen: list[Any] = []
    agent = Agent(name="talker", model=getattr(models, protocol)(serve(model=script)))
    durable(agent, on_stream=seen.append if is_streamed else None, registry=registry)
    execution = local.start("talker", "Go.").run()
    assert execution.wait() == "This is it."
    viewer = viewer_of(execution)
    assert viewer.texts() == {"talker model": "This is it."}
    assert viewer.kinds("talker model").count("try_failed") == 2
    assert "This is not" in str([event.data for event in viewer.events])
    assert bool(seen) is is_streamed


def test_a_model_that_cannot_answer_in_pieces_is_heard_at_its_end(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    inner = models.responses(serve(model=sums))

    class Whole(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            return await inner.get_response(*args, **kwargs)

        def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
            raise NotImplementedError

    durable(Agent(name="whole", model=Whole(), tools=[add]), registry=registry)
    execution = local.start("whole", "Sum it up.").run()
    assert execution.wait() == "It is 3."
    viewer = viewer_of(execution)
    assert viewer.texts() == {"whole model": "Let me see.", "whole model#2": "It is 3."}
    assert viewer.calls() == [("whole model", "add", {"a": 1, "b": 2})]
