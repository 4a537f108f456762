"""What a client says to an execution while it runs."""

from abc import ABC, abstractmethod

from agent_statestore.records import SayMode
from celery_agents.lifecycle.decider import Decider
from celery_agents.lifecycle.saying import DEFAULT_MODE, say
from celery_agents.lifecycle.services import Services


class SteeredExecution(ABC):
    """The part of `Execution` that steers it."""

    id: str
    _services: Services

    @property
    def services(self) -> Services:
        """The installation that it is seen through."""
        return self._services

    def say(
        self,
        text: str,
        *,
        mode: SayMode | str = DEFAULT_MODE,
        message_id: str | None = None,
        sender: str | None = None,
    ) -> None:
        """Say something to the execution while it runs. A loop agent or an integration tells its model of it.

        `mode` says when: "next_turn" before the next call of the model, when the calls of tools that it has decided are
        done; "next_boundary" before the next step, so that calls which were decided and not begun are not made;
        "interrupt" also ends the call of a model that is in flight. A plain agent reads it with `run.said()`; what
        nobody reads stays in the mailbox. It answers no question and wakes nobody: where the execution is paused, it is
        read once that is over.

        It changes nothing if this execution was sent a message with the same `message_id` (at most 251 characters)
        before, so saying may be repeated. `sender` is recorded. Raises `InvalidRecord`, `ValueTooLarge`, `MailboxFull`,
        `ContextTooLarge`, `ExecutionOver`, `ExecutionNotFound`.
        """
        say(self._services, self.id, text, mode=mode, message_id=message_id, by=self._decider(sender, None))

    @abstractmethod
    def _decider(self, sender: str | None, reason: str | None) -> Decider: ...
