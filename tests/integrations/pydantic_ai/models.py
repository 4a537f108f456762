"""Pydantic AI's own model classes, talking to the tests' server over HTTP, without retries of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from celery_agents.engine.run import event_loop
from celery_agents.testing.llm import ModelServer


class Models:
    """Makes models, and closes their clients on the loop that they belong to."""

    def __init__(self) -> None:
        self._clients: list[Any] = []

    def openai(self, server: ModelServer, name: str = "model") -> Model:
        """A model behind OpenAI's protocol."""
        client = AsyncOpenAI(base_url=server.openai_url, api_key="none", max_retries=0)
        self._clients.append(client)
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))

    def anthropic(self, server: ModelServer, name: str = "model") -> Model:
        """A model behind Anthropic's protocol."""
        client = AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0)
        self._clients.append(client)
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client))

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            event_loop.start(client.close()).result(10)


@contextmanager
def made_models() -> Iterator[Models]:
    """Models that are closed at the end of the block."""
    models = Models()
    try:
        yield models
    finally:
        models.close()
