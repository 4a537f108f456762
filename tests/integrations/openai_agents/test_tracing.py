"""Executions call nobody but the model: the SDK's tracing, which exports to OpenAI, is off in them."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from agents import Agent
from agents.run_config import RunConfig
from agents.tracing import flush_traces

from celery_agents import Registry
from celery_agents.integrations.openai_agents import DurableRunner, durable
from celery_agents.testing import LocalAgents
from celery_agents.testing.llm import ModelServer, Says
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]
_hosts: list[set[str]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Keep the host of each look-up of a name, and of each connection. Nothing can take such a hook away again."""
    if _hosts and event == "socket.getaddrinfo":
        _hosts[-1].add(str(arguments[0]))
    if _hosts and event == "socket.connect" and isinstance(arguments[1], tuple):
        _hosts[-1].add(str(arguments[1][0]))


@pytest.mark.parametrize(
    ("tracing", "hosts"),
    # The second case shows that the first one would see it.
    [(False, {"127.0.0.1"}), pytest.param(True, {"127.0.0.1", "api.openai.com"}, marks=pytest.mark.full)],
)
def test_no_other_host_is_called(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    monkeypatch: pytest.MonkeyPatch,
    tracing: bool,
    hosts: set[str],
) -> None:
    # As an application has it; with the key, the SDK exports.
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    config = RunConfig(model_provider=models.config(serve(model=[Says("done")])).model_provider)
    runner = DurableRunner(tracing=tracing)
    durable(Agent(name="agent", model="model"), registry=registry, runner=runner, run_config=config)
    sys.addaudithook(_note)
    _hosts.append(set())
    try:
        assert local.start("agent", "Hello.").run().wait() == "done"
        flush_traces()
        assert _hosts[-1] == hosts
    finally:
        _hosts.clear()
