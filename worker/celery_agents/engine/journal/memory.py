"""What an agent writes besides its steps: working memory, messages, facts. It travels with the next checkpoint.

On a replay the code before the last recorded step runs again, and so do its writes outside of steps. The memory
therefore starts empty and is filled again by the code and by the recorded changes of steps, so that the agent sees at
every point what it saw the first time; messages and facts that are stored already are counted and not stored twice.
"""

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent_statestore.envelope import OUTBOX_KEY, dump, load
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import AgentContext, JSONValue, StepChanges, require_name
from celery_agents.engine.journal.conversation import Conversation
from celery_agents.engine.journal.pending import Outbox, Pending

_ABSENT: Final = object()
# What `run.spend` has counted. It is kept in the working memory, and not among the agent's own values there, so that
# `run.memory.clear()` does not forget it.
SPENT_KEY: Final = "agents.spent"
# How often the agent's code has said something into its stream, outside of steps; likewise.
SAID_KEY: Final = "agents.said"
_HIDDEN: Final = frozenset({SPENT_KEY, SAID_KEY})


class RunMemory(MutableMapping[str, JSONValue]):
    """The working memory as a mapping of JSON values.

    Reading gives a copy: assign to record a change. Raises `NotSerialisable` or `ValueTooLarge` on assignment.
    """

    def __init__(
        self, context: AgentContext, max_value_bytes: int, *, check_may_write: Callable[[], None] = lambda: None
    ) -> None:
        self.outbox = Outbox()
        self.conversation = Conversation(
            stored=context.memory,
            outbox=self.outbox,
            max_value_bytes=max_value_bytes,
            check_may_write=check_may_write,
        )
        self._max_value_bytes = max_value_bytes
        # Called before each write; raises where writing is not allowed.
        self._check_may_write = check_may_write
        self._values: dict[str, str] = {}
        self._step: _StepMark | None = None
        self._said_before: int = context.memory.working_memory.get(SAID_KEY, 0)
        # Of steps that were taken over from another execution the store has the record, and not what the code wrote
        # between them: the first checkpoint of an attempt brings all that.
        self._is_stored = all(step.attempt > 0 for step in context.steps)

    # -- the mapping ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> JSONValue:
        if key in _HIDDEN:
            raise KeyError(key)
        return load(self._values[key])

    def __setitem__(self, key: str, value: JSONValue) -> None:
        require_name("memory key", key)
        if key in _HIDDEN or key == OUTBOX_KEY:
            raise InvalidRecord("memory key", f"{key!r} is the engine's own")
        self._write(key, dump(value, f"memory[{key!r}]", self._max_value_bytes))

    def __delitem__(self, key: str) -> None:
        if key not in self._values or key in _HIDDEN:
            raise KeyError(key)
        self._write(key, None)

    def __iter__(self) -> Iterator[str]:
        return iter([key for key in self._values if key not in _HIDDEN])

    def __len__(self) -> int:
        return len(self._values) - sum(key in self._values for key in _HIDDEN)

    # -- what is spent, and remembered ---------------------------------------------------------------------------------

    def spent(self) -> dict[str, float]:
        """Return what `spend` has counted, by name."""
        text = self._values.get(SPENT_KEY)
        counted: dict[str, float] = {} if text is None else load(text)
        return counted

    def spend(self, **amounts: float) -> None:
        """Add valid amounts to what was spent, by name."""
        spent = self.spent()
        self._write(
            SPENT_KEY, dump(spent | {name: spent.get(name, 0) + more for name, more in amounts.items()}, "spent")
        )

    def count_said(self) -> int | None:
        """Count one more thing that the code says into the stream; return which, or None if it was said before."""
        text = self._values.get(SAID_KEY)
        count = (0 if text is None else int(load(text))) + 1
        self._values[SAID_KEY] = dump(count, "said")
        if count <= self._said_before:
            return None
        self.outbox.set(SAID_KEY, self._values[SAID_KEY])
        return count

    def check_value(self, value: JSONValue, name: str) -> None:
        """Raise `NotSerialisable` or `ValueTooLarge` for a value that cannot be recorded, and where none can be."""
        self._check_may_write()
        dump(value, name, self._max_value_bytes)

    @property
    def facts(self) -> tuple[JSONValue, ...]:
        """What this execution has remembered up to this point of its code."""
        return tuple(self.conversation.facts)

    # -- around a step -------------------------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Mark the point that `roll_back` returns to."""
        pending, conversation = self.outbox.pending, self.conversation
        self._step = _StepMark(
            pending_messages=len(pending.messages),
            pending_facts=len(pending.facts),
            messages=len(conversation.messages),
            facts=len(conversation.facts),
        )

    def roll_back(self) -> None:
        """Undo what the step changed: its try failed, and another one may change the same again."""
        mark, pending, conversation = self._begun(), self.outbox.pending, self.conversation
        self._step = None
        _restore(self._values, mark.values_before)
        _restore(pending.memory, mark.pending_before)
        del pending.messages[mark.pending_messages :]
        del pending.facts[mark.pending_facts :]
        del conversation.messages[mark.messages :]
        del conversation.facts[mark.facts :]

    def step_changes(self) -> StepChanges | None:
        """Return what the step changed, for its record; None if nothing."""
        mark = self._step or self._begun()
        messages = len(self.conversation.messages) - mark.messages
        facts = len(self.conversation.facts) - mark.facts
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
        """Apply what a recorded step changed. All that was pending before it is stored: it came with that step."""
        taken = self.outbox.take()
        if changes is not None:
            self._repeat(changes, taken)
        if not self._is_stored:
            self.outbox.put_back(taken)

    def _repeat(self, changes: StepChanges, taken: Pending) -> None:
        for key, value in changes.memory.items():
            taken.memory[key] = self._values[key] = dump(value, "memory")
        for key in changes.forgotten:
            taken.memory[key] = None
            self._values.pop(key, None)
        self.conversation.repeat(changes.messages, changes.facts)

    def _write(self, key: str, text: str | None) -> None:
        self._check_may_write()
        if self._step is not None:
            self._step.values_before.setdefault(key, self._values.get(key, _ABSENT))
            self._step.pending_before.setdefault(key, self.outbox.pending.memory.get(key, _ABSENT))
            self._step.written[key] = text
        if text is None:
            self._values.pop(key, None)
        else:
            self._values[key] = text
        self.outbox.set(key, text)

    def _begun(self) -> "_StepMark":
        if self._step is None:
            raise RuntimeError("no step has begun")
        return self._step


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


def _restore(values: dict[str, Any], before: dict[str, Any]) -> None:
    for key, value in before.items():
        if value is _ABSENT:
            values.pop(key, None)
        else:
            values[key] = value
