"""The conversation of an execution's session, as the agent's code has it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent_statestore.documents.sessions import SessionMessage, Summary
from agent_statestore.envelope import SESSION_MARK
from agent_statestore.errors import InvalidRecord, LeaseLost
from agent_statestore.records import Action, JSONValue, Result
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.outgoing import as_said, is_of_session, summary_entry
from celery_agents.engine.outcome import Ending, Outcome

T = TypeVar("T")

SESSION: Final = "session"


class RunSession:
    """The conversation of the session, up to this point of the code.

    It begins with what other executions have said before this one first asked for it; what they say later is not seen.
    Messages are stored with the next checkpoint, and are in the session from then on: once, whatever crashes.
    """

    def __init__(
        self, attempt: Attempt, summary: Summary | None, history: tuple[SessionMessage, ...], up_to: int
    ) -> None:
        self._attempt = attempt
        self._history = history
        self._up_to = up_to
        self.summary = summary

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._attempt.context.session_id or ""

    @property
    def history(self) -> tuple[SessionMessage, ...]:
        """What was said before this execution. Messages that `summary` stands for are left out."""
        return self._history

    @property
    def messages(self) -> tuple[SessionMessage, ...]:
        """The history and what this execution has added, whose messages have the numbers that they will have."""
        said = [message for message in self._attempt.memory.conversation.messages if is_of_session(message)]
        execution_id = self._attempt.context.execution_id
        own = (as_said(message, execution_id, number) for number, message in enumerate(said, self._up_to + 1))
        return (*self._history, *own)

    def say(self, role: str, content: JSONValue, metadata: Mapping[str, JSONValue] | None = None) -> None:
        """Add a message to the session, and to what this execution has said (`run.messages`).

        It is stored with the next checkpoint. Raise `InvalidRecord`, `NotSerialisable` or `ValueTooLarge`.
        """
        if metadata and SESSION_MARK in metadata:
            raise InvalidRecord("metadata", f"{SESSION_MARK!r} is the engine's own")
        conversation, now = self._attempt.memory.conversation, self._attempt.now()
        conversation.say(role, content, now, {**(metadata or {}), SESSION_MARK: True})

    def summarise(self, content: JSONValue, *, up_to: int | None = None) -> None:
        """Let `content` stand for the messages up to number `up_to`, from the next execution on.

        By default these are all that were said before this execution. Have a step make it of `history`. It is stored
        with the next checkpoint; the messages stay readable, and `messages` of this execution stays as it is. Without a
        history there is nothing to do. Raise `InvalidRecord` for the number of no message of the history.
        """
        if up_to is not None and not 0 < up_to <= self._up_to:
            raise InvalidRecord("up_to", f"needs the number of a message, from 1 to {self._up_to}, not {up_to!r:.80}")
        if self._up_to:
            memory = self._attempt.memory
            memory.check_value(content, "summary")
            memory.outbox.put_document(summary_entry(up_to or self._up_to, content))


@dataclass(frozen=True, slots=True)
class OpenSession:
    """The first use of the session: the execution becomes its one writer, and what it sees of it is recorded."""

    name: str = SESSION

    def take(self, attempt: Attempt, key: str) -> RunSession:
        """Return the session as the attempt sees it. Raise `SessionBusy`."""
        outgoing = attempt.recorder.outgoing
        attempt.course.enter_boundary()
        self._ask(attempt, outgoing.hold_session)
        # What an attempt before this one has recorded, and died before it was written.
        self._ask(attempt, outgoing.write)
        action = Action(kind=SESSION, input=attempt.context.session_id)
        recorded = attempt.journal.look_up(key, action)
        if recorded is None:
            started = attempt.now()
            result = Result(success=True, output=self._ask(attempt, lambda: self._look(outgoing.conversation)))
            recorded = attempt.recorder.make_step(key, action, result, started=started)
            attempt.recorder.record(recorded)
        assert recorded.result is not None, "it has no intent"
        seen: Any = recorded.result.output
        summary = None if seen["summary"] is None else Summary(**seen["summary"])
        after = 0 if summary is None else summary.up_to
        history = self._ask(attempt, lambda: tuple(outgoing.conversation.messages(after, up_to=seen["up_to"])))
        return RunSession(attempt, summary, history, seen["up_to"])

    @staticmethod
    def _look(conversation: Any) -> JSONValue:
        summary = conversation.summary()
        return {
            "up_to": conversation.length(),
            "summary": None if summary is None else {"up_to": summary.up_to, "content": summary.content},
        }

    @staticmethod
    def _ask(attempt: Attempt, question: Callable[[], T]) -> T:
        try:
            return attempt.ask_store(question)
        except LeaseLost:
            attempt.held.mark_lost()
            attempt.course.stop(Outcome(ending=Ending.LOST))
