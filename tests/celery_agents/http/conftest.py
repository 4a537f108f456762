from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from celery_agents import Agent, Run, agent, tool
from celery_agents.host.runtime import Runtime
from tests.celery_agents.http.serving import SERVERS, Client


@pytest.fixture(params=SERVERS)
def client(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Client]:
    for port in SERVERS[request.param](runtime):
        yield Client(port)


@pytest.fixture(params=SERVERS)
def open_client(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Client]:
    """Reaches a server that lets every identified sender do everything."""
    for port in SERVERS[request.param](runtime, permit=lambda *_: True):
        yield Client(port)


@pytest.fixture
def asking(runtime: Runtime) -> Agent:
    def asking(run: Run, secret: str) -> Any:
        run.memory["secret"] = secret
        run.say("user", secret)
        run.step("look", lambda: secret)
        return run.ask("Wie viel €?", schema=int, timeout=timedelta(hours=1))

    return agent(registry=runtime.registry)(asking)


@pytest.fixture
def paying(runtime: Runtime) -> Agent:
    @tool(registry=runtime.registry, requires_approval=True)
    def pay(to: str, amount: int) -> str:
        """Sends money."""
        return f"paid {amount} to {to}"

    def paying(run: Run, _: None) -> str:
        return run.tool(pay, "Zoë", 30)

    return agent(registry=runtime.registry)(paying)


@pytest.fixture
def waiting(runtime: Runtime) -> Agent:
    def waiting(run: Run, event: str) -> Any:
        return run.wait_for(event)

    return agent(registry=runtime.registry)(waiting)
