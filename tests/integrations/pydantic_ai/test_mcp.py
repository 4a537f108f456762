"""Tools of an MCP server: listed once, called once; a replay of what is recorded does not even start the server."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset

from agent_statestore import AgentState
from celery_agents import Registry, Retry
from celery_agents.integrations.pydantic_ai import CeleryDurability, StepOptions, durable
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Reply, Says
from tests.integrations.pydantic_ai.models import Models

Serve = Callable[..., ModelServer]
SERVER = Path(__file__).with_name("mcp_server.py")


def shopping(conversation: Conversation) -> Reply:
    if conversation.turn == 0:
        return Calls(Call("price", {"article": "book"}), Call("price", {"article": "pencil"}, "a-pencil"))
    if conversation.turn == 1:
        return Calls(Call("buy", {"article": "book"}, "the-book"))
    return Says(conversation.results[0])


def shopper(
    models: Models, server: ModelServer, ledger: Path, durability: CeleryDurability, program: Path = SERVER
) -> Agent[None, str]:
    transport = StdioTransport(command=sys.executable, args=[str(program), str(ledger)], keep_alive=False)
    toolset = MCPToolset(transport, id="shop", init_timeout=60, include_instructions=True)
    return Agent(models.openai(server), name="shopper", toolsets=[toolset], capabilities=[durability])


def test_listing_and_calls_are_steps_and_a_replay_starts_no_server(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, tmp_path: Path
) -> None:
    server, ledger = serve(model=shopping), tmp_path / "ledger"
    durable(shopper(models, server, ledger, CeleryDurability()), registry=registry)
    local.crash_at("shopper model#3", When.BEFORE_CHECKPOINT)
    execution = local.start("shopper", "Buy a book.").run()
    assert execution.wait() == "bought book"
    assert sorted(ledger.read_text().split("\n")) == ["", "buy book", "price book", "price pencil", "started"]
    steps = {step.name.partition(" call_")[0]: step for step in execution.steps()}
    assert "shopper__mcp_server__shop.get_tools" in steps
    assert steps["buy the-book"].action.input == {"article": "book"}
    assert "Prices are in euros." in server.requests[0].conversation.system


def test_a_server_that_does_not_start_yet_is_waited_for_without_a_slot(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, tmp_path: Path
) -> None:
    server, ledger, later = serve(model=shopping), tmp_path / "ledger", tmp_path / "later.py"
    options = StepOptions(retry=Retry(retries=3, first_delay=timedelta(minutes=1)))
    durability = CeleryDurability(toolsets={"shop": options})
    durable(shopper(models, server, ledger, durability, later), registry=registry)
    execution = local.start("shopper", "Buy a book.").run()
    assert execution.state is AgentState.WAITING
    assert server.requests == []
    later.write_text(SERVER.read_text())
    local.advance(timedelta(hours=1))
    assert execution.wait() == "bought book"
    (listing,) = [step for step in execution.steps() if "get_tools" in step.name]
    assert listing.tries == 2


@pytest.mark.parametrize("options", [None, pytest.param(StepOptions(on_crash="retry"), marks=pytest.mark.full)])
def test_annotations_say_whether_an_interrupted_call_is_repeated(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, tmp_path: Path, options: StepOptions | None
) -> None:
    server, ledger = serve(model=shopping), tmp_path / "ledger"
    toolsets = {} if options is None else {"shop": options}
    durable(shopper(models, server, ledger, CeleryDurability(toolsets=toolsets)), registry=registry)
    local.crash_at("buy the-book", When.BEFORE_CHECKPOINT)
    local.crash_at("price a-pencil", When.BEFORE_CHECKPOINT)
    execution = local.start("shopper", "Buy a book.")
    while not execution.run().state.is_over:
        pass
    told = execution.wait()
    assert ledger.read_text().count("price pencil") == 2
    repeated = ledger.read_text().count("buy book")
    if options is None:
        assert "whether it took effect is not known" in told
        assert repeated == 1
    else:
        assert told == "bought book"
        assert repeated == 2
