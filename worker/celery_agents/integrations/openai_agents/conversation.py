"""The conversation of a session of ours as a session of the SDK."""

from typing import Any, Final

from agents.exceptions import UserError
from agents.memory import Session, SessionSettings

from celery_agents.engine.run.session import RunSession

# In the metadata of a message whose content is an item of the SDK.
_FORM: Final = "openai_agents"


class RunConversation(Session):
    """What the execution sees of its session. It takes no steps: what is added rides in the next checkpoint, once.

    What others have said, plain agents say, is read as messages of the user or the assistant, and a summary as one of
    the system. Items cannot be taken out again: rewind the session between executions.
    """

    def __init__(self, conversation: RunSession) -> None:
        self._conversation = conversation
        self.session_id = conversation.session_id
        self.session_settings: SessionSettings | None = None

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """See `Session`."""
        items: list[Any] = []
        if self._conversation.summary is not None:
            said = f"Summary of the conversation so far: {self._conversation.summary.content}"
            items.append({"role": "system", "content": said})
        for message in self._conversation.messages:
            if message.metadata.get("form") == _FORM:
                items.append(message.content)
            else:
                role = "assistant" if message.role == "assistant" else "user"
                items.append({"role": role, "content": str(message.content)})
        return items if limit is None else items[-limit:] if limit > 0 else []

    async def add_items(self, items: list[Any]) -> None:
        """See `Session`."""
        for item in items:
            role = item.get("role") if isinstance(item, dict) else None
            self._conversation.say(role if isinstance(role, str) else "assistant", item, {"form": _FORM})

    async def pop_item(self) -> Any:
        """Raise `UserError`."""
        raise UserError("an item of a session cannot be taken out by an execution; rewind the session afterwards")

    async def clear_session(self) -> None:
        """Raise `UserError`."""
        raise UserError("a session cannot be cleared by an execution; erase it afterwards")
