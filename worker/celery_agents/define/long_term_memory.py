"""What an agent has of the time before its execution: the conversation, facts, or both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from agent_statestore.documents.sessions import SessionMessage
from agent_statestore.recall.facts import Scope, ScopeKind
from agent_statestore.recall.recall import Recalled
from agent_statestore.recall.vectors import Embed, VectorIndex
from agent_statestore.records import JSONValue
from celery_agents.define.names import check_count
from celery_agents.errors import RegistrationError

# Of English text, in the tokens of today's models.
_CHARACTERS_PER_TOKEN: Final = 4

# Makes one text of a summary (None at first) and the messages behind it.
Summarise: TypeAlias = Callable[[str | None, Sequence[SessionMessage]], Any]


def rough_count(message: SessionMessage) -> int:
    """Return about how many tokens a message has: one for each four characters."""
    return len(str(message.content)) // _CHARACTERS_PER_TOKEN + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferMemory:
    """The last messages of the session, as many as fit into a budget of tokens.

    Attributes:
        max_tokens: the budget.
        summarise: a function, plain or async, that makes one text of the summary so far (None at first) and the
            messages that fit no longer. It is called as a step. It has half of the budget summarised at a time, so that
            it is not called in each execution. Without it older messages are left out.
        count: returns how many tokens a message has; see `rough_count`.

    Raises `RegistrationError` for what is no budget.
    """

    max_tokens: int
    summarise: Summarise | None = None
    count: Callable[[SessionMessage], int] = rough_count

    def __post_init__(self) -> None:
        check_count("memory", "max_tokens", self.max_tokens, 1)

    def fitting(self, messages: Sequence[SessionMessage]) -> int:
        """Return how many messages at the beginning do not fit; half of the budget is left free if there are any."""
        counts = [self.count(message) for message in messages]
        if sum(counts) <= self.max_tokens:
            return 0
        left, first = self.max_tokens // 2 if self.summarise else self.max_tokens, len(messages)
        while first and counts[first - 1] <= left:
            first -= 1
            left -= counts[first]
        return min(first, len(messages) - 1)  # the last one is always there


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorMemory:
    """Facts of the user, the session, the agent or a team, found by what they are about.

    Attributes:
        embed: turns a list of texts into a list of vectors; a plain function, called in the step "recall".
        scopes: whose facts are looked for: "user", "session", "agent", or a `Scope`. What an execution does not have (a
            user, a session) is left out.
        model: the name of what `embed` does; vectors of different models are kept apart.
        least: the least cosine of what is found, -1 to 1.
        index: where the vectors are kept; by default in the store. It is called in the step "recall".

    Raises `RegistrationError` for an invalid scope.
    """

    embed: Embed
    scopes: Iterable[str | Scope] = (ScopeKind.USER,)
    model: str = "default"
    least: float = -1.0
    index: VectorIndex | None = None

    def __post_init__(self) -> None:
        scopes = (self.scopes,) if isinstance(self.scopes, str | Scope) else tuple(self.scopes)
        for scope in scopes:
            if not isinstance(scope, Scope) and scope not in (ScopeKind.USER, ScopeKind.SESSION, ScopeKind.AGENT):
                raise RegistrationError(
                    "memory", f"a scope is 'user', 'session', 'agent' or a Scope, not {scope!r:.80}"
                )
        if not callable(self.embed):
            raise RegistrationError("memory", f"embed is a function of a list of texts, not {self.embed!r:.80}")
        object.__setattr__(self, "scopes", scopes)


@dataclass(frozen=True, slots=True)
class HybridMemory:
    """Both: the last messages, and facts."""

    buffer: BufferMemory
    vector: VectorMemory


LongTermMemory: TypeAlias = BufferMemory | VectorMemory | HybridMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """What `run.recall` found.

    Attributes:
        summary: what stands for the beginning of the conversation.
        messages: its last messages, those of this execution included.
        facts: the facts that are nearest to the question, the nearest first.
    """

    summary: JSONValue = None
    messages: tuple[SessionMessage, ...] = ()
    facts: tuple[Recalled, ...] = field(default=())

    def __str__(self) -> str:
        """Return all of it as text for a prompt; parts that are empty are left out."""
        parts = []
        if self.facts:
            parts.append("Known facts:\n" + "\n".join(f"- {found.fact.text}" for found in self.facts))
        if self.summary is not None:
            parts.append(f"Summary of the conversation so far:\n{self.summary}")
        if self.messages:
            parts.append("\n".join(f"{message.role}: {message.content}" for message in self.messages))
        return "\n\n".join(parts)


def parts_of(memory: LongTermMemory) -> tuple[BufferMemory | None, VectorMemory | None]:
    """Return the buffer and the facts of a memory."""
    if isinstance(memory, HybridMemory):
        return memory.buffer, memory.vector
    return (memory, None) if isinstance(memory, BufferMemory) else (None, memory)
