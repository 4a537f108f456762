"""What models say is in the stream of the execution while they say it, and recorded as it is without."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, FunctionModel

from celery_agents import Registry
from celery_agents.integrations.pydantic_ai import CeleryDurability, StepOptions, durable
from celery_agents.testing import LocalAgents, LocalExecution
from celery_agents.testing.llm import BreaksOff, Call, Calls, Conversation, ModelServer, Refuses, Reply, Says
from tests.integrations.pydantic_ai.models import Models
from tests.integrations.streams import viewer_of

Serve = Callable[..., ModelServer]


def sums(conversation: Conversation) -> Reply:
    """A model that has a sum made, and tells it."""
    if conversation.turn == 0:
        return Calls(Call("add", {"a": 1, "b": 2}), text="Let me see.")
    return Says(f"It is {conversation.results[0]}.")


def answers(execution: LocalExecution) -> list[Any]:
    """What is recorded of the models' answers, without what is of the moment."""
    outputs: list[Any] = [
        step.result.output for step in execution.steps() if step.action.kind == "model" and step.result
    ]
    for part in (part for output in outputs for part in output["parts"]):
        if isinstance(part.get("args"), str):  # a text or a dict, to Pydantic AI it is the same
            part["args"] = json.loads(part["args"])
    return [{**output, "timestamp": None, "provider_details": None} for output in outputs]


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_pieces_make_up_what_is_recorded(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, protocol: str
) -> None:
    recorded, server = [], serve(model=sums)
    for name, stream in (("live", None), ("whole", False)):
        model = getattr(models, protocol)(server)
        durability = CeleryDurability(model=StepOptions(stream=stream))
        durable(Agent(model, name=name, tools=[add], capabilities=[durability]), registry=registry)
        execution = local.start(name, "Sum it up.").run()
        assert execution.wait() == "It is 3."
        recorded.append((answers(execution), [step.spent for step in execution.steps()]))
        viewer = viewer_of(execution)
        if stream is False:
            assert viewer.texts() == {}
            continue
        assert viewer.texts() == {"live model": "Let me see.", "live model#2": "It is 3."}
        assert viewer.calls() == [("live model", "add", {"a": 1, "b": 2})]
        assert viewer.kinds("live model") == ["text", "tool_call", "step_recorded"]
    (live, spent_live), (whole, spent_whole) = recorded
    assert spent_live == spent_whole
    for one, other in zip(live, whole, strict=True):
        assert {key: (one[key], other[key]) for key in one if one[key] != other[key]} == {}


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize("error", [None, Refuses(status=529, message="overloaded", code="server_error")])
def test_an_answer_that_breaks_off_is_tried_again_and_its_words_are_void(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, protocol: str, error: Refuses | None
) -> None:
    def script(conversation: Conversation) -> Reply:
        return BreaksOff(text="This is not ", error=error) if conversation.times == 1 else Says("This is it.")

    durable(
        Agent(getattr(models, protocol)(serve(model=script)), name="talker", capabilities=[CeleryDurability()]),
        registry=registry,
    )
    execution = local.start("talker", "Go.").run()
    assert execution.wait() == "This is it."
    viewer = viewer_of(execution)
    assert viewer.texts() == {"talker model": "This is it."}
    assert "This is not" in str([event.data for event in viewer.events])


def test_other_models_say_what_they_can(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    """One thinks, one cannot speak in pieces, and of several the one that answers is heard."""

    def whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[TextPart("At once.")])

    async def pieces(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        yield {0: DeltaThinkingPart(content="Let me ")}
        yield {0: DeltaThinkingPart(content="think.")}
        for piece in ("I ", "have."):
            yield piece

    server = serve(broken=lambda _: BreaksOff(text="Not this", error=Refuses(status=500)), good=lambda _: Says("This."))
    given: dict[str, tuple[Model, str, list[str]]] = {
        "silent": (FunctionModel(whole), "At once.", []),
        "thinker": (FunctionModel(stream_function=pieces), "I have.", ["Let me think."]),
        "several": (FallbackModel(models.openai(server, "broken"), models.openai(server, "good")), "This.", []),
    }
    for name, (model, text, thoughts) in given.items():
        durable(Agent(model, name=name, capabilities=[CeleryDurability()]), registry=registry)
        execution = local.start(name, "Go.").run()
        assert execution.wait() == text, name
        viewer = viewer_of(execution)
        assert viewer.texts() == {f"{name} model": text}, name
        assert viewer.thoughts() == thoughts, name


def test_a_handler_of_events_sees_what_it_saw(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=sums)
    seen: dict[bool, list[str]] = {}
    for is_fed in (True, False):
        events = seen[is_fed] = []

        async def see(context: RunContext[None], given: AsyncIterable[Any], events: list[str] = events) -> None:
            events.extend([str(event) async for event in given])

        name = "fed" if is_fed else "mute"
        durability = CeleryDurability(event_stream_handler=see, model=StepOptions(stream=None if is_fed else False))
        durable(Agent(models.openai(server), name=name, tools=[add], capabilities=[durability]), registry=registry)
        execution = local.start(name, "Sum it up.").run()
        assert execution.wait() == "It is 3."
        texts = {"fed model": "Let me see.", "fed model#2": "It is 3."} if is_fed else {}
        assert viewer_of(execution).texts() == texts
    assert [one.partition("timestamp")[0] for one in seen[True]] == [
        one.partition("timestamp")[0] for one in seen[False]
    ]
    assert any("TextPartDelta" in one for one in seen[True])


def test_each_of_several_agents_speaks_in_steps_of_its_own(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    """Beside each other, in tools that are code of the agent, and in a tool that is one step."""

    def boss(conversation: Conversation) -> Reply:
        calls = [Call("ask", {"name": name}) for name in ("one", "two")]
        return Says("Done.") if conversation.turn else Calls(*calls, Call("inside", {}))

    server = serve(
        boss=boss, helper=lambda conversation: Says(f"I am {conversation.prompt}, and I have something to say.")
    )
    helpers = {
        name: Agent(models.openai(server, "helper"), name=name, capabilities=[CeleryDurability()])
        for name in ("one", "two", "three")
    }
    agent = Agent(models.openai(server, "boss"), name="boss", capabilities=[CeleryDurability()])

    @agent.tool_plain(metadata={"celery": False})
    async def ask(name: str) -> str:
        return (await helpers[name].run(name)).output

    @agent.tool_plain
    async def inside() -> str:
        return (await helpers["three"].run("three")).output

    durable(agent, registry=registry)
    execution = local.start("boss", "Go.").run()
    assert execution.wait() == "Done."
    texts = {step.partition(" call_")[0]: text for step, text in viewer_of(execution).texts().items()}
    said = {
        step: f"I am {name}, and I have something to say."
        for step, name in (("one model", "one"), ("two model", "two"), ("inside", "three"))
    }
    assert texts == {**said, "boss model#2": "Done."}
