"""What an agent writes besides its steps: working memory, messages, facts. It travels with the next checkpoint.

On a replay the code before the last recorded step runs again, and so do its writes outside of steps. The memory
therefore starts empty and is filled again by the code and by the recorded changes of steps, so that the agent sees at
every point what it saw the first time; messages and facts that are stored already are counted and not stored twice.
"""

import math
import threading
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from agent_statestore.codec import encode_message
from agent_statestore.envelope import dump, load, seal
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import AgentContext, JSONValue, Message, StepChanges, require_name

T = TypeVar("T")

_ABSENT: Final = object()
# What `run.spend` has counted. It is kept in the working memory, and not among the agent's own values there, so that
# `run.memory.clear()` does not forget it.
SPENT_KEY: Final = "agents.spent"


@dataclass(slots=True)
class Pending:
    """Writes that the next checkpoint will carry."""

    memory: dict[str, str | None] = field(default_factory=dict)  # JSON text; None = forgotten
    messages: list[Message] = field(default_factory=list)
    facts: list[JSONValue] = field(default_factory=list)

    def written(self) -> dict[str, JSONValue]:
        """The values to set."""
        return {key: load(text) for key, text in self.memory.items() if text is not None}

    def forgotten(self) -> tuple[str, ...]:
        """The keys to remove."""
        return tuple(key for key, text in self.memory.items() if text is None)

    def followed_by(self, later: "Pending") -> "Pending":
        """Both in one."""
        return Pending(
            memory=self.memory | later.memory,
            messages=self.messages + later.messages,
            facts=self.facts + later.facts,
        )


class RunMemory(MutableMapping[str, JSONValue]):
    """The working memory as a mapping of JSON values.

    Reading gives a copy: assign to record a change. Raises `NotSerialisable` or `ValueTooLarge` on assignment.
    """

    def __init__(self, context: AgentContext, max_value_bytes: int) -> None:
        self._max_value_bytes = max_value_bytes
        # Called before each write; raises where writing is not allowed.
        self.check_may_write: Callable[[], None] = lambda: None
        # An async agent writes on its event loop while a thread takes what is pending.
        self._taking = threading.Lock()
        self._values: dict[str, str] = {}
        self._stored_messages = [message for message in context.memory.conversation_history if message.by_run]
        self._stored_facts = list(context.memory.run_facts)
        # Tasks of an async agent may go in another order on a replay: what is stored is then found by what it says.
        self.is_in_any_order = False
        self._unsaid = list(self._stored_messages)
        self._unremembered = list(self._stored_facts)
        self._messages: list[Message] = []
        self._facts: list[JSONValue] = []
        self.pending = Pending()
        self._step: _StepMark | None = None
        # Of steps that were taken over from another execution the store has the record, and not what the code wrote
        # between them: the first checkpoint of an attempt brings all that.
        self._is_stored = all(step.attempt > 0 for step in context.steps)

    # -- the mapping ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> JSONValue:
        if key == SPENT_KEY:
            raise KeyError(key)
        return load(self._values[key])

    def __setitem__(self, key: str, value: JSONValue) -> None:
        require_name("memory key", key)
        if key == SPENT_KEY:
            raise InvalidRecord("memory key", f"{key!r} is the engine's own")
        self._write(key, dump(value, f"memory[{key!r}]", self._max_value_bytes))

    def __delitem__(self, key: str) -> None:
        if key not in self._values or key == SPENT_KEY:
            raise KeyError(key)
        self._write(key, None)

    def __iter__(self) -> Iterator[str]:
        return iter([key for key in self._values if key != SPENT_KEY])

    def __len__(self) -> int:
        return len(self._values) - (SPENT_KEY in self._values)

    # -- what is spent -------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> dict[str, float]:
        """What `spend` has counted, by name."""
        text = self._values.get(SPENT_KEY)
        counted: dict[str, float] = {} if text is None else load(text)
        return counted

    def spend(self, **amounts: float) -> None:
        """Adds to what was spent, by name. Raises `InvalidRecord` for what is no amount."""
        for name, amount in amounts.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
                raise InvalidRecord(name, f"needs a number of at least 0, not {amount!r:.80}")
        spent = self.spent
        self._write(
            SPENT_KEY, dump(spent | {name: spent.get(name, 0) + more for name, more in amounts.items()}, "spent")
        )

    # -- messages and facts --------------------------------------------------------------------------------------------

    @property
    def messages(self) -> tuple[Message, ...]:
        """What this execution has said up to this point of its code."""
        return tuple(self._messages)

    @property
    def facts(self) -> tuple[JSONValue, ...]:
        """What this execution has remembered up to this point of its code."""
        return tuple(self._facts)

    @property
    def said(self) -> int:
        """How many messages there are up to this point."""
        return len(self._messages)

    @property
    def remembered(self) -> int:
        """How many facts there are up to this point."""
        return len(self._facts)

    def say(self, role: str, content: JSONValue, now: datetime) -> None:
        """Appends a message, unless a replay has come to one that is stored."""
        self.check_may_write()
        stored = self._stored_message(role, content)
        if stored is not None:
            self._messages.append(stored)
            return
        message = Message(role=role, content=content, timestamp=now, by_run=True)
        encode_message(message, self._max_value_bytes)  # refused here, where it is given, or never
        self._messages.append(message)
        with self._taking:
            self.pending.messages.append(message)

    def _stored_message(self, role: str, content: JSONValue) -> Message | None:
        if not self.is_in_any_order:
            place = len(self._messages)
            return self._stored_messages[place] if place < len(self._stored_messages) else None
        found = _take_out(self._unsaid, lambda stored: stored.role == role and _same(stored.content, content))
        return found[0] if found else None

    def remember(self, fact: JSONValue) -> None:
        """Appends a fact, unless a replay has come to one that is stored."""
        self.check_may_write()
        place = len(self._facts)
        if place < len(self._stored_facts) and not self.is_in_any_order:
            self._facts.append(self._stored_facts[place])
            return
        seal({"fact": fact, "by_run": True}, "fact", self._max_value_bytes)
        if self.is_in_any_order and _take_out(self._unremembered, lambda stored: _same(stored, fact)):
            self._facts.append(fact)
            return
        self._facts.append(fact)
        with self._taking:
            self.pending.facts.append(fact)

    # -- around a step -------------------------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Marks the point that `roll_back` returns to."""
        self._step = _StepMark(
            pending_messages=len(self.pending.messages),
            pending_facts=len(self.pending.facts),
            messages=len(self._messages),
            facts=len(self._facts),
        )

    def roll_back(self) -> None:
        """Undoes what the step changed: its try failed, and another one may change the same again."""
        mark = self._mark()
        _restore(self._values, mark.values_before)
        _restore(self.pending.memory, mark.pending_before)
        del self.pending.messages[mark.pending_messages :]
        del self.pending.facts[mark.pending_facts :]
        del self._messages[mark.messages :]
        del self._facts[mark.facts :]

    def step_changes(self) -> StepChanges | None:
        """What the step changed, for its record; None if nothing."""
        mark = self._step
        if mark is None:
            raise RuntimeError("no step has begun")
        messages, facts = len(self._messages) - mark.messages, len(self._facts) - mark.facts
        if not (mark.written or messages or facts):
            return None
        return StepChanges(
            memory={key: load(text) for key, text in mark.written.items() if text is not None},
            forgotten=tuple(key for key, text in mark.written.items() if text is None),
            messages=messages,
            facts=facts,
        )

    def keep_step(self) -> None:
        """The step is recorded: what it changed stays."""
        self._step = None

    def repeat_step(self, changes: StepChanges | None) -> None:
        """Applies what a recorded step changed. All that was pending before it is stored: it came with that step."""
        taken = self.take_pending()
        if changes is not None:
            self._repeat(changes, taken)
        if not self._is_stored:
            self.put_back(taken)

    def _repeat(self, changes: StepChanges, taken: Pending) -> None:
        for key, value in changes.memory.items():
            taken.memory[key] = self._values[key] = dump(value, "memory")
        for key in changes.forgotten:
            taken.memory[key] = None
            self._values.pop(key, None)
        said, remembered = len(self._messages), len(self._facts)
        self._messages.extend(self._stored_messages[said : said + changes.messages])
        self._facts.extend(self._stored_facts[remembered : remembered + changes.facts])

    def take_pending(self) -> Pending:
        """The pending writes, for a checkpoint; what is written from now on is for the next one."""
        with self._taking:
            taken, self.pending = self.pending, Pending()
        return taken

    def put_back(self, taken: Pending) -> None:
        """The checkpoint was not written: they are pending again."""
        with self._taking:
            self.pending = taken.followed_by(self.pending)

    def _write(self, key: str, text: str | None) -> None:
        self.check_may_write()
        if self._step is not None:
            self._step.values_before.setdefault(key, self._values.get(key, _ABSENT))
            self._step.pending_before.setdefault(key, self.pending.memory.get(key, _ABSENT))
            self._step.written[key] = text
        if text is None:
            self._values.pop(key, None)
        else:
            self._values[key] = text
        with self._taking:
            self.pending.memory[key] = text

    def _mark(self) -> "_StepMark":
        if self._step is None:
            raise RuntimeError("no step has begun")
        mark, self._step = self._step, None
        return mark


@dataclass(slots=True, kw_only=True)
class _StepMark:
    pending_messages: int
    pending_facts: int
    messages: int
    facts: int
    written: dict[str, str | None] = field(default_factory=dict)
    # What the keys that the step wrote held before it: undoing costs what the step changed, not what there is.
    values_before: dict[str, Any] = field(default_factory=dict)
    pending_before: dict[str, Any] = field(default_factory=dict)


def _take_out(left: list[T], is_meant: Callable[[T], bool]) -> list[T]:
    """Removes the first that is meant; returns it, in a list that is empty if there is none."""
    for place, one in enumerate(left):
        if is_meant(one):
            return [left.pop(place)]
    return []


def _same(stored: JSONValue, given: JSONValue) -> bool:
    return bool(load(dump(stored, "stored")) == load(dump(given, "given")))


def _restore(values: dict[str, Any], before: dict[str, Any]) -> None:
    for key, value in before.items():
        if value is _ABSENT:
            values.pop(key, None)
        else:
            values[key] = value
