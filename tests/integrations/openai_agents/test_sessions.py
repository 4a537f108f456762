"""Sessions of the SDK: a turn is written once, whenever the execution is killed; and what cannot be so is refused."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, OpenAIResponsesCompactionSession, RunConfig, SQLiteSession, function_tool
from agents.run_config import SandboxRunConfig

from agent_statestore import AgentState
from celery_agents import AsyncRun, Registry
from celery_agents import agent as make_agent
from celery_agents.engine.run import event_loop
from celery_agents.integrations.openai_agents import DurableRunner, durable
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]


def adding(conversation: Conversation) -> Says | Calls:
    if not conversation.results:
        return Calls(Call("add", {"a": 1, "b": len(conversation.turns)}))
    return Says(f"{conversation.prompt} {conversation.results[0]}")


@function_tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def kept(path: Path) -> list[Any]:
    session = SQLiteSession("chat", path)
    try:
        return asyncio.run(session.get_items())
    finally:
        session.close()


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.full)])
def test_a_turn_is_written_once(
    serve: Serve, models: Models, registry: Registry, tmp_path: Path, is_whole: bool
) -> None:
    server = serve(model=adding)
    agent = Agent(name="chatty", model=models.responses(server), tools=[add])
    opened: list[SQLiteSession] = []

    def session(run: AsyncRun) -> SQLiteSession:
        assert run.session_id is not None
        opened.append(SQLiteSession(run.session_id, tmp_path / f"{run.metadata['case']}.db"))
        return opened[-1]

    durable(agent, registry=registry, session=session)
    durable(agent, name="streamed", registry=registry, session=session, on_stream=lambda _: None)

    def turns(case: str, name: str, step: str = "", when: When | None = None) -> list[str]:
        """Two turns of one session, of which the second one crashes; the names of its steps."""
        for prompt in ("One.", "Two."):
            with LocalAgents(registry=registry) as local:
                if when is not None and prompt == "Two.":
                    local.crash_at(step, when)
                execution = local.start(name, prompt, session_id="chat", metadata={"case": case}).run()
                # The model has seen the first turn, once.
                assert execution.wait() == ("One. 2" if prompt == "One." else "Two. 6"), (case, prompt)
        assert texts(tmp_path / f"{case}.db") == ["One.", None, "2", "One. 2", "Two.", None, "6", "Two. 6"], case
        return [step.name for step in execution.steps() if step.name.startswith("session ")]

    steps = turns("undisturbed", "chatty")
    assert {name.partition("#")[0] for name in steps} == {"session chat read", "session chat write"}
    turns("undisturbed and streamed", "streamed")
    for name in ("chatty", "streamed") if is_whole else ("chatty",):
        for step in steps:
            for when in When if is_whole else [When.BEFORE_CHECKPOINT]:
                turns(f"{name} {step} {when}", name, step, when)
    for one in opened:
        one.close()


def texts(path: Path) -> list[str | None]:
    """What a session has kept, in words; None for a call."""
    found = []
    for item in kept(path):
        said = item.get("content") or item.get("output")
        found.append(said[0]["text"] if isinstance(said, list) else said)
    return found


def test_what_cannot_be_written_once_is_refused(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, tmp_path: Path
) -> None:
    server = serve(model=adding)
    agent = Agent(name="chatty", model=models.responses(server), tools=[add])
    inner = SQLiteSession("chat")
    compacting = OpenAIResponsesCompactionSession("chat", inner, client=models.client(server))
    cases: dict[str, dict[str, Any]] = {
        "compacts": {"session": compacting},
        "keeps": {"conversation_id": "conv_1"},
        "sandbox": {"run_config": RunConfig(sandbox=SandboxRunConfig())},
    }
    for name in cases:

        @make_agent(registry=registry, name=name)
        async def refused(run: AsyncRun, input: str) -> str:
            return str((await DurableRunner().run(agent, input, **cases[run.agent_id])).final_output)

        failed = local.start(name, "Hi.").run()
        assert failed.state is AgentState.FAILED
        error = failed.summary().error
        assert error is not None
        assert name in error.message
    inner.close()
    assert server.requests == []


def test_outside_of_executions_a_session_is_the_sdk_s(serve: Serve, models: Models, tmp_path: Path) -> None:
    server, path = serve(model=adding), tmp_path / "plain.db"
    agent = Agent(name="chatty", model=models.responses(server), tools=[add])
    session = SQLiteSession("chat", path)
    result = event_loop.start(DurableRunner().run(agent, "One.", session=session, run_config=models.config(server)))
    assert result.result(30).final_output == "One. 2"
    session.close()
    assert len(kept(path)) == 4


def test_a_run_goes_on_with_the_conversation_of_its_session(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    agent = Agent(name="chatty", model=models.responses(serve(model=adding)), tools=[add])
    chat = durable(agent, registry=registry, session=True)
    assert local.start(chat, "One.", session_id="chat").run().wait() == "One. 2"
    local.crash_at("chatty model#2", When.BEFORE_CHECKPOINT)
    execution = local.start(chat, "Two.", session_id="chat").run()
    assert execution.wait() == "Two. 6", "the model has seen the first turn, once"
    assert not [step.name for step in execution.steps() if step.name.startswith("session chat")]
    items = [message.content for message in local.store.session("chat").messages()]
    assert [item.get("role") or item.get("type") for item in items if isinstance(item, dict)] == [
        *("user", "function_call", "function_call_output", "assistant") * 2
    ]
    assert local.start(chat, "Alone.").run().wait() == "Alone. 2"
