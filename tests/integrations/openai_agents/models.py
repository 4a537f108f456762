"""The SDK's own model classes, talking to the tests' server over HTTP, without retries of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from agents import OpenAIChatCompletionsModel, OpenAIProvider, OpenAIResponsesModel, RunConfig
from agents.models.interface import Model
from openai import AsyncOpenAI

from celery_agents.engine.run import event_loop
from celery_agents.testing.llm import ModelServer


class Models:
    """Makes models, and closes their clients on the loop that they belong to."""

    def __init__(self) -> None:
        self._clients: list[AsyncOpenAI] = []

    def client(self, server: ModelServer) -> AsyncOpenAI:
        """A client of the server."""
        client = AsyncOpenAI(base_url=server.openai_url, api_key="none", max_retries=0)
        self._clients.append(client)
        return client

    def responses(self, server: ModelServer, name: str = "model") -> Model:
        """A model behind the protocol that the SDK speaks by default."""
        return OpenAIResponsesModel(name, self.client(server))

    def chat(self, server: ModelServer, name: str = "model") -> Model:
        """A model behind the protocol that most other services speak."""
        return OpenAIChatCompletionsModel(name, self.client(server))

    def config(self, server: ModelServer) -> RunConfig:
        """What has agents find their models by name."""
        return RunConfig(model_provider=OpenAIProvider(openai_client=self.client(server)), tracing_disabled=True)

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
