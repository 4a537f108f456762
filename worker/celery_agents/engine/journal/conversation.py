"""The messages and facts that an execution adds in the order of its code: each is stored once.

On a replay the code says again what it has said. What is stored is found by its place, or, where tasks of an async
agent may go in another order, by what it says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from agent_statestore.codec import encode_message
from agent_statestore.envelope import dump, load, seal
from agent_statestore.records import JSONValue, Memory, Message
from celery_agents.engine.journal.pending import Outbox

T = TypeVar("T")


@dataclass(kw_only=True)
class Conversation:
    """What an execution has said (`messages`) and remembered (`facts`) up to this point of its code.

    `check_may_write` is called before each write; it raises where writing is not allowed.
    """

    stored: Memory
    outbox: Outbox
    max_value_bytes: int
    check_may_write: Callable[[], None]
    messages: list[Message] = field(default_factory=list)
    facts: list[JSONValue] = field(default_factory=list)
    is_in_any_order: bool = False

    # Not before they are wanted: most agents say nothing.
    @cached_property
    def _stored_messages(self) -> list[Message]:
        return [message for message in self.stored.conversation_history if message.by_run]

    @cached_property
    def _stored_facts(self) -> list[JSONValue]:
        return list(self.stored.run_facts)

    @cached_property
    def _unsaid(self) -> list[Message]:
        return list(self._stored_messages)

    @cached_property
    def _unremembered(self) -> list[JSONValue]:
        return list(self._stored_facts)

    def say(
        self, role: str, content: JSONValue, now: datetime, metadata: Mapping[str, JSONValue] | None = None
    ) -> None:
        """Append a message, unless a replay has come to one that is stored. One with metadata goes to a session."""
        self.check_may_write()
        stored = self._stored_message(role, content)
        if stored is not None:
            self.messages.append(stored)
            return
        message = Message(role=role, content=content, timestamp=now, metadata=metadata or {}, by_run=True)
        encode_message(message, self.max_value_bytes)  # refused here, where it is given, or never
        self.messages.append(message)
        self.outbox.say(message, goes_out=metadata is not None)

    def remember(self, fact: JSONValue) -> None:
        """Append a fact, unless a replay has come to one that is stored."""
        self.check_may_write()
        place = len(self.facts)
        if place < len(self._stored_facts) and not self.is_in_any_order:
            self.facts.append(self._stored_facts[place])
            return
        seal("fact", {"fact": fact, "by_run": True}, "fact", self.max_value_bytes)
        if self.is_in_any_order and _take_out(self._unremembered, lambda stored: _same(stored, fact)):
            self.facts.append(fact)
            return
        self.facts.append(fact)
        self.outbox.remember(fact)

    def repeat(self, messages: int, facts: int) -> None:
        """Append the next ones that are stored: a recorded step has added so many."""
        said, remembered = len(self.messages), len(self.facts)
        self.messages.extend(self._stored_messages[said : said + messages])
        self.facts.extend(self._stored_facts[remembered : remembered + facts])

    def _stored_message(self, role: str, content: JSONValue) -> Message | None:
        if not self.is_in_any_order:
            place = len(self.messages)
            return self._stored_messages[place] if place < len(self._stored_messages) else None
        found = _take_out(self._unsaid, lambda stored: stored.role == role and _same(stored.content, content))
        return found[0] if found else None


def _take_out(left: list[T], is_meant: Callable[[T], bool]) -> list[T]:
    """Remove the first that is meant; return it, in a list that is empty if there is none."""
    for place, one in enumerate(left):
        if is_meant(one):
            return [left.pop(place)]
    return []


def _same(stored: JSONValue, given: JSONValue) -> bool:
    return bool(load(dump(stored, "stored")) == load(dump(given, "given")))
