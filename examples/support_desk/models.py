"""Which model works at the desk: a real one where there is a key for it, otherwise one that follows a script."""

import os

from openai import AsyncOpenAI
from pydantic_ai.models import KnownModelName, Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from celery_agents.testing.llm import Call, Calls, Conversation, Reply

# Where the demo's own server is; see `script`.
URL = "SUPPORT_DESK_MODEL_URL"
SCRIPTED = "scripted-model"


def chosen() -> Model | KnownModelName:
    """Return the model, by the keys that are in the environment."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return "anthropic:claude-haiku-5-5"
    if os.environ.get("OPENAI_API_KEY"):
        return "openai:gpt-6-luna"
    # Retries are steps of the execution, with the worker's slot free meanwhile, and not the client's.
    client = AsyncOpenAI(base_url=os.environ.get(URL, "http://127.0.0.1:9/v1"), api_key="none", max_retries=0)
    return OpenAIChatModel(SCRIPTED, provider=OpenAIProvider(openai_client=client))


def script(conversation: Conversation) -> Reply:
    """Answer as a sensible model would."""
    said = conversation.results[0] if conversation.results else ""
    match conversation.turn:
        case 0:
            return Calls(Call("find_order", {"number": 1007}), text="Let me look at your order.")
        case 1:
            return Calls(Call("stock", {"article": "espresso machine"}))
        case 2:
            return Calls(Call("ask_customer", {"question": "We have no other one. Shall we pay your money back?"}))
        case 3:
            return Calls(Call("refund", {"number": 1007, "amount": 120.0, "reason": f"customer: {said}"}))
        case _:
            amount = float(said.split()[1]) if said.startswith("refunded") else 0.0
            return Calls(Call("final_result", {"summary": f"Order 1007: {said}", "refunded": amount}))
