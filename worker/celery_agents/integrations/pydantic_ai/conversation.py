"""The messages of Pydantic AI as the conversation of a session: what was said before, and what a run has added."""

from typing import Any, Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    UserPromptPart,
)

from agent_statestore.documents.sessions import SessionMessage
from celery_agents.engine.run.session import RunSession

# In the metadata of a message whose content is a message of Pydantic AI.
_FORM: Final = {"form": "pydantic_ai"}


def history_of(conversation: RunSession) -> list[ModelMessage]:
    """Return what was said in the session before this execution, the summary first.

    What others have said, plain agents say, is taken as text: of the user, or of the model.
    """
    messages = [_message_of(message) for message in conversation.history]
    if conversation.summary is not None:
        said = f"Summary of the conversation so far: {conversation.summary.content}"
        messages.insert(0, ModelRequest(parts=[SystemPromptPart(said)]))
    return messages


def add_to(conversation: RunSession, messages: list[ModelMessage]) -> None:
    """Add what a run has brought to the session."""
    contents: list[Any] = ModelMessagesTypeAdapter.dump_python(messages, mode="json")
    for message, content in zip(messages, contents, strict=True):
        conversation.say("assistant" if isinstance(message, ModelResponse) else "user", content, _FORM)


def _message_of(message: SessionMessage) -> ModelMessage:
    if message.metadata.get("form") == _FORM["form"]:
        (made,) = ModelMessagesTypeAdapter.validate_python([message.content])
        return made
    text = str(message.content)
    if message.role == "assistant":
        return ModelResponse(parts=[TextPart(text)])
    return ModelRequest(parts=[UserPromptPart(text)])
