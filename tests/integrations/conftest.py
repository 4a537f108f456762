"""What the tests of all frameworks stand on: a server that speaks the protocols of models, and executions in place."""

from collections.abc import Callable, Iterator

import pytest

from celery_agents import Registry
from celery_agents.testing import LocalAgents
from celery_agents.testing.llm import ModelServer, Script
from tests.services.warm import preload

# What the workers of the kill tests import: each start would take seconds more.
FRAMEWORKS = (
    "pydantic_ai.models.openai",
    "agents",
    "openai.resources.responses",
    "langchain.agents",
    "langchain_openai",
    "langgraph.graph",
)


def pytest_configure() -> None:
    preload(*FRAMEWORKS)


@pytest.fixture
def serve() -> Iterator[Callable[..., ModelServer]]:
    """Starts model servers, which are closed at the end; each has answered what was asked, without a fault."""
    servers: list[ModelServer] = []

    def start(**models: Script) -> ModelServer:
        server = ModelServer(models)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()
        assert server.faults == []


@pytest.fixture
def registry() -> Registry:
    """Where a test's agents are registered."""
    return Registry()


@pytest.fixture
def local(registry: Registry) -> Iterator[LocalAgents]:
    """Executions in the test's process, with planned crashes."""
    with LocalAgents(registry=registry) as agents:
        yield agents
