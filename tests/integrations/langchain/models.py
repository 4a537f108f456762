"""LangChain's own chat models, talking to the tests' server over HTTP, without retries of their own."""

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI

from celery_agents.testing.llm import ModelServer


def openai(server: ModelServer, name: str = "model", **options: Any) -> BaseChatModel:
    """A model behind OpenAI's protocol."""
    return ChatOpenAI(model=name, base_url=server.openai_url, api_key="none", max_retries=0, **options)


def anthropic(server: ModelServer, name: str = "model", **options: Any) -> BaseChatModel:
    """A model behind Anthropic's protocol."""
    return ChatAnthropic(model=name, base_url=server.url, api_key="none", max_retries=0, **options)
