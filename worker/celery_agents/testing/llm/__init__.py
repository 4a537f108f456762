"""A server that speaks the protocols of paid models, with answers that a script gives.

For tests and demonstrations of agents without a key and without a cost: the client classes of openai, anthropic,
Pydantic AI or LangChain talk to it over HTTP as to the real services, streams included. Point their `base_url` at it.

    script = [Calls(Call("refund", {"order": 7})), Says("Your money is on its way.")]
    with ModelServer({"gpt-9": script}) as server:
        model = OpenAIChatModel("gpt-9", provider=OpenAIProvider(base_url=server.openai_url, api_key="none"))
"""

from celery_agents.testing.llm.conversation import Conversation, Turn
from celery_agents.testing.llm.replies import BreaksOff, Call, Calls, Refuses, Reply, Says, Script
from celery_agents.testing.llm.server import ModelServer, Request

__all__ = [
    "BreaksOff",
    "Call",
    "Calls",
    "Conversation",
    "ModelServer",
    "Refuses",
    "Reply",
    "Request",
    "Says",
    "Script",
    "Turn",
]
