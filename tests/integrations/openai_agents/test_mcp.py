"""Tools of MCP servers are listed once and called once, over stdio and HTTP; a replay connects to none."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp

from agent_statestore import AgentState
from celery_agents import AsyncRun, Registry
from celery_agents import agent as make_agent
from celery_agents.integrations.openai_agents import DurableRunner, StepOptions, durable
from celery_agents.testing import LocalAgents, LocalExecution, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.openai_agents.mcp_server import OverHTTP
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]
SERVER = Path(__file__).with_name("mcp_server.py")


def shopping(conversation: Conversation) -> Says | Calls:
    if conversation.turn == 0:
        return Calls(Call("price", {"article": "book"}, "a-book"), Call("price", {"article": "pencil"}, "a-pencil"))
    if conversation.turn == 1:
        return Calls(Call("buy", {"article": "book"}, "the-book"))
    return Says(conversation.results[0])


def stdio(ledger: Path, **options: Any) -> MCPServer:
    params: Any = {"command": sys.executable, "args": [str(SERVER), str(ledger)]}
    return MCPServerStdio(params, name="shop", client_session_timeout_seconds=60, **options)


@pytest.fixture
def over_http(tmp_path: Path) -> Iterator[Callable[..., OverHTTP]]:
    """Starts servers in this process, which are stopped at the end."""
    servers: list[OverHTTP] = []

    def start(port: int) -> OverHTTP:
        servers.append(OverHTTP(tmp_path / "ledger", port))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


class Counted(MCPServerStreamableHttp):
    """A server that counts how often it is connected."""

    connected = 0

    async def connect(self) -> None:
        """See `MCPServer`."""
        self.connected += 1
        await super().connect()  # type: ignore[no-untyped-call]


def http(port: int, **options: Any) -> Counted:
    return Counted({"url": f"http://127.0.0.1:{port}/mcp", "timeout": 20}, name="shop", **options)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def finished(execution: LocalExecution) -> Any:
    while not execution.run().state.is_over:
        pass
    return execution.wait()


def asking(execution: LocalExecution) -> LocalExecution:
    """Run until a person is asked; a server that is slow to answer is tried again before."""
    while execution.run().state is not AgentState.WAITING_FOR_APPROVAL:
        assert not execution.state.is_over, execution.context().error
    return execution


def lines(ledger: Path) -> list[str]:
    return sorted(ledger.read_text().splitlines()) if ledger.exists() else []


def test_listing_and_calls_are_steps_and_a_replay_starts_no_server(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, tmp_path: Path
) -> None:
    server, ledger = serve(model=shopping), tmp_path / "ledger"
    shop = stdio(ledger)
    agent = Agent(name="shopper", model=models.responses(server), mcp_servers=[shop])
    durable(agent, registry=registry)
    local.crash_at("shopper model#3", When.BEFORE_CHECKPOINT)
    execution = local.start("shopper", "Buy a book.").run()
    assert finished(execution) == "bought book"
    assert lines(ledger) == ["buy book", "price book", "price pencil", "started"]
    steps = {step.name: step for step in execution.steps()}
    assert len([name for name in steps if name.startswith("shop tools")]) == 1
    assert steps["buy the-book"].action.input == {"article": "book"}
    assert agent.mcp_servers == [shop]


@pytest.mark.parametrize("options", [None, pytest.param(StepOptions(on_crash="retry"), marks=pytest.mark.full)])
def test_annotations_say_whether_an_interrupted_call_is_repeated(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    over_http: Callable[[int], OverHTTP],
    tmp_path: Path,
    options: StepOptions | None,
) -> None:
    server, ledger, port = serve(model=shopping), tmp_path / "ledger", free_port()
    over_http(port)
    agent = Agent(name="shopper", model=models.responses(server), mcp_servers=[http(port)])
    runner = DurableRunner(servers={} if options is None else {"shop": options})
    durable(agent, registry=registry, runner=runner)
    local.crash_at("buy the-book", When.BEFORE_CHECKPOINT)
    local.crash_at("price a-pencil", When.BEFORE_CHECKPOINT)
    told = finished(local.start("shopper", "Buy a book."))
    assert lines(ledger).count("price pencil") == 2
    repeated = lines(ledger).count("buy book")
    assert (told == "bought book", repeated) == (options is not None, 1 if options is None else 2)
    assert options is not None or "whether it took effect is not known" in told


def test_a_server_that_is_not_there_yet_is_waited_for_without_a_slot(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    over_http: Callable[[int], OverHTTP],
    tmp_path: Path,
) -> None:
    server, port = serve(model=shopping), free_port()
    durable(Agent(name="shopper", model=models.responses(server), mcp_servers=[http(port)]), registry=registry)
    execution = local.start("shopper", "Buy a book.").run()
    assert execution.state is AgentState.WAITING
    assert server.requests == []
    over_http(port)
    local.advance(timedelta(minutes=3))
    assert finished(execution) == "bought book"
    assert lines(tmp_path / "ledger") == ["buy book", "price book", "price pencil", "started"]


def test_a_server_that_was_lost_is_told_to_the_model_and_connected_anew(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    over_http: Callable[[int], OverHTTP],
    tmp_path: Path,
) -> None:
    port = free_port()
    first = over_http(port)

    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            first.stop()
        if conversation.turn == 1:
            over_http(port)
        if conversation.turn < 2:
            return Calls(Call("buy", {"article": "pen"}, f"pen-{conversation.turn}"))
        return Says(" | ".join(turn.text for turn in conversation.turns if turn.role == "tool"))

    server, shop = serve(model=script), http(port)
    durable(Agent(name="shopper", model=models.responses(server), mcp_servers=[shop]), registry=registry)
    failed, _, bought = finished(local.start("shopper", "Go.")).partition(" | ")
    assert "error" in failed
    assert bought == "bought pen"
    assert lines(tmp_path / "ledger").count("buy pen") == 1
    assert shop.connected == 2


@pytest.mark.full
def test_a_server_that_dies_in_a_call_is_told_to_the_model_and_started_anew(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, tmp_path: Path
) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            return Calls(Call("die", {}, "dies"))
        if conversation.turn == 1:
            return Calls(Call("buy", {"article": "pen"}, "buys"))
        return Says(" | ".join(turn.text for turn in conversation.turns if turn.role == "tool"))

    server, ledger = serve(model=script), tmp_path / "ledger"
    durable(Agent(name="shopper", model=models.responses(server), mcp_servers=[stdio(ledger)]), registry=registry)
    first, _, second = finished(local.start("shopper", "Go.")).partition(" | ")
    assert "error" in first
    assert second == "bought pen"
    assert lines(ledger) == ["buy pen", "die", "started", "started"]


def test_people_approve_calls_of_a_server_and_may_edit_them(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    over_http: Callable[[int], OverHTTP],
    tmp_path: Path,
) -> None:
    server, port = serve(model=shopping), free_port()
    over_http(port)
    shop = http(port, require_approval={"buy": "always"})
    durable(Agent(name="shopper", model=models.responses(server), mcp_servers=[shop]), registry=registry)
    execution = asking(local.start("shopper", "Buy a book."))
    (asked,) = execution.summary().waits
    assert (asked.prompt["tool"], asked.prompt["description"]) == ("buy", "Buys an article.")
    execution.approve(sender="ada", key=asked.key, arguments={"article": "car"})
    assert finished(execution) == "bought car"
    assert lines(tmp_path / "ledger").count("buy car") == 1
    # Whoever paused in between held no connection.
    assert shop.connected == 2


def test_runs_of_one_process_share_a_connection_that_the_last_one_closes(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    over_http: Callable[[int], OverHTTP],
    tmp_path: Path,
) -> None:
    server, port = serve(model=shopping), free_port()
    over_http(port)
    shop = http(port)
    agent = Agent(name="shopper", model=models.responses(server), mcp_servers=[shop])

    @make_agent(registry=registry)
    async def several(run: AsyncRun, input: str) -> list[str]:
        runner = DurableRunner()
        results = await asyncio.gather(*(runner.run(agent, f"{input} {n}") for n in range(3)))
        return [one.final_output for one in results]

    assert local.start("several", "Buy").run().wait() == ["bought book"] * 3
    assert lines(tmp_path / "ledger").count("buy book") == 3
    assert shop.connected == 1
    until = time.monotonic() + 60
    while shop.session is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert shop.session is None
