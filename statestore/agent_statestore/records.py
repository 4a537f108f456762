"""The records that are read from a store: frozen, keyword-only, with aware datetimes checked on entry.

A value typed `JSONValue` is anything that JSON carries. Each read decodes a copy: changing one changes nothing stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from agent_statestore.clock import require_aware as require_aware
from agent_statestore.clock import require_delay as require_delay
from agent_statestore.clock import require_ringable as require_ringable
from agent_statestore.errors import InvalidRecord
from agent_statestore.plain_text import ROUND_MARK as ROUND_MARK
from agent_statestore.plain_text import require_round, require_sender
from agent_statestore.plain_text import vote_key as vote_key
from agent_statestore.plain_text import without_voter as without_voter
from agent_statestore.states import AgentState
from agent_statestore.states import AuditEvent as AuditEvent
from agent_statestore.states import SayMode as SayMode
from agent_statestore.states import SignalKind as SignalKind
from agent_statestore.states import WaitKind as WaitKind

JSONValue: TypeAlias = Any
DEFAULT_FIRST_RING: Final = timedelta(seconds=10)


def require_name(field_name: str, value: object) -> None:
    """Raise `InvalidRecord` unless the value is a text that every backend can keep as a key."""
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise InvalidRecord(field_name, f"needs a text of 1 to 255 characters, not {value!r:.80}")
    require_text(field_name, value)


def require_text(field_name: str, value: object) -> None:
    """Raise `InvalidRecord` unless the value is None or a text that every backend can keep."""
    if value is None or (type(value) is str and value.isascii() and value.isprintable()):
        return
    if not isinstance(value, str):
        raise InvalidRecord(field_name, f"needs a text, not {value!r:.80}")
    if "\x00" in value:
        raise InvalidRecord(field_name, "must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRecord(field_name, "contains a lone surrogate, which UTF-8 cannot carry") from error


# More than anybody spends, and few enough that sums of such amounts are finite.
_MOST: Final = 10**15


def require_amount(field_name: str, amount: object) -> None:
    """Raise `InvalidRecord` unless the value is a number from 0 to 10^15."""
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount <= _MOST:
        is_long = isinstance(amount, int) and abs(amount) > _MOST**2  # Python refuses to show the longest
        shown = "a longer one" if is_long else f"{amount!r:.80}"
        raise InvalidRecord(field_name, f"needs a number of at least 0, and at most 10^15, not {shown}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An error as data: enough to show it, and to raise it again.

    `type` is `module:qualified_name`; `args` are what its class is called with to make it again, None if unknown.
    `bases` are the classes that it derives from, nearest first. `fields` are its attributes. `tuples` are the paths,
    such as `("args", 1)`, of what was a tuple and is a list in JSON. `not_kept` names what JSON does not carry as it
    was: a field by its name, an argument as `args[1]`. `members` are those of an exception group.
    """

    type: str
    message: str
    args: tuple[JSONValue, ...] | None = None
    bases: tuple[str, ...] = ()
    traceback: str | None = None
    fields: Mapping[str, JSONValue] = field(default_factory=dict)
    tuples: tuple[tuple[str | int, ...], ...] = ()
    not_kept: tuple[str, ...] = ()
    members: "tuple[ErrorInfo, ...]" = ()
    cause: "ErrorInfo | None" = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a step does: `kind` ("step", "tool", "ask", ...), the tool's name, its input, thought, a title to show."""

    kind: str
    tool: str | None = None
    input: JSONValue = None
    thought: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a step ended: an output, or an error."""

    success: bool
    output: JSONValue = None
    error: ErrorInfo | None = None

    def __post_init__(self) -> None:
        if self.success == (self.error is not None):
            raise InvalidRecord("result", "a success has no error, a failure has one")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChanges:
    """What a step's function changed besides returning a value, so that a replay repeats it without the function.

    `messages` and `facts` count what the step appended.
    """

    memory: Mapping[str, JSONValue] = field(default_factory=dict)
    forgotten: tuple[str, ...] = ()
    messages: int = 0
    facts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStep:
    """One journaled unit of an execution. `result` is None while it is only an intent.

    `name` is the key in the journal: the step's name, with a suffix from its second occurrence on ("search#2").
    `attempt` is the claim under which it was recorded, `tries` how often its function was called. An intent that is
    `in_flight` was written right before such a call: whoever finds it cannot know how far the call came. `said` and
    `remembered` count the messages and facts that the agent's own code had written by then; None where nobody counted.
    `round` is that of the question which the step asks, and `refused` why the round before had no use; see `Wait`.
    `spent` is what all its tries have used up, by name ("tokens", "cost"). `within` are the keys of the groups that it
    was taken in, the outermost first.
    """

    step_number: int
    name: str
    action: Action
    result: Result | None = None
    attempt: int = 0
    tries: int = 1
    timestamp: datetime
    duration: timedelta = timedelta(0)
    changes: StepChanges | None = None
    in_flight: bool = False
    said: int | None = None
    remembered: int | None = None
    round: int = 1
    refused: str | None = None
    spent: Mapping[str, float] = field(default_factory=dict)
    within: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.step_number < 1:
            raise InvalidRecord("step_number", "steps are numbered from 1")
        if self.in_flight and self.result is not None:
            raise InvalidRecord("in_flight", "a step that has a result is over")
        if self.spent:
            for name, amount in self.spent.items():
                require_name("spent", name)
                require_amount(name, amount)
        require_name("name", self.name)
        require_aware("timestamp", self.timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One entry of the conversation. `by_run` marks what the agent's own `run.say` wrote; a replay skips it."""

    role: str
    content: JSONValue
    timestamp: datetime
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    by_run: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.role, str) or not self.role:
            raise InvalidRecord("role", "a message needs a role")
        require_aware("timestamp", self.timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class RagChunk:
    """One retrieved passage that the agent works with."""

    content: JSONValue
    source: str | None = None
    score: float | None = None
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What an execution remembers: the conversation, a working set of named values, facts, and entities by name.

    `run_facts` are those of the `facts` that the agent's own `run.remember` wrote.
    """

    conversation_history: tuple[Message, ...] = ()
    working_memory: Mapping[str, JSONValue] = field(default_factory=dict)
    facts: tuple[JSONValue, ...] = ()
    run_facts: tuple[JSONValue, ...] = ()
    entities: Mapping[str, JSONValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that a paused execution waits for; the first that comes ends the pause.

    `key` is the journal key of the waiting step: an answer names it. `prompt` is the question as shown to a person.
    `schema` is a JSON Schema for the answer. At `wake_at` the execution goes on even if nothing came (a timer, or a
    deadline); None means that it waits for ever.
    A question whose answer is of no use is asked anew: its `round` grows by one, and `refused` says what was wrong with
    the answer to the round before. An answer belongs to one round. `answer_type` is how the code that asks names the
    type of the answer, for a process that has this code, too.
    Where several people decide, `voters` are those who have not. A signal of each, under `vote_key`, ends the pause.
    """

    kind: WaitKind
    key: str
    prompt: JSONValue = None
    schema: Mapping[str, JSONValue] | None = None
    asked_at: datetime
    wake_at: datetime | None = None
    round: int = 1
    refused: str | None = None
    answer_type: JSONValue = None
    voters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_name("key", self.key)
        for voter in self.voters:
            require_sender("voters", voter)
            require_round(vote_key(self.key, voter), self.round)
        require_round(self.key, self.round)
        require_text("refused", self.refused)
        require_aware("asked_at", self.asked_at)
        require_aware("wake_at", self.wake_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One entry of an execution's mailbox: an answer, an approval, an event, a child's end, a cancel, or a saying.

    `key` and `round` name the wait that it is for; a saying's key is its `SayMode`. `sender` and `reason` record who
    sent it and why, as far as the caller told. `channel` ("http", "command line", "python") and `os_user`, the system's
    name of the sending process's user, are what that process knows. The store sets `sent_at`, when it was accepted.
    """

    signal_id: str
    kind: SignalKind
    key: str = ""
    payload: JSONValue = None
    sender: str | None = None
    reason: str | None = None
    sent_at: datetime | None = None
    round: int = 1
    channel: str | None = None
    os_user: str | None = None

    def __post_init__(self) -> None:
        require_name("signal_id", self.signal_id)
        if self.key or self.kind is not SignalKind.CANCEL:
            require_name("key", self.key)
        if self.kind is SignalKind.SAY and self.key not in frozenset(SayMode):
            modes = ", ".join(repr(mode.value) for mode in SayMode)
            raise InvalidRecord("mode", f"is one of {modes}, not {self.key!r:.80}")
        require_round(self.key, self.round)
        for name in ("sender", "channel", "os_user"):
            require_sender(name, getattr(self, name))
        require_text("reason", self.reason)
        require_aware("sent_at", self.sent_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry of an execution's audit trail, which only ever grows.

    `position` counts from 1 without gaps. `at` is the store's time. `attempt` is the last claim so far, and `worker`
    the owner of the lease under which the entry was written, None where no lease lived. `by` says who asked for it,
    `reason` why (its error, for a failure), `channel` and `os_user` through what. `signal` is a decision or an event.
    """

    position: int
    at: datetime
    event: AuditEvent
    from_state: AgentState | None = None
    to_state: AgentState | None = None
    attempt: int = 0
    worker: str | None = None
    by: str | None = None
    reason: str | None = None
    signal: Signal | None = None
    channel: str | None = None
    os_user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write to one execution until `expires_at` (on the store's clock).

    `token` is the fencing token; `owner` names the process; `ttl` is what a renewal adds.
    """

    execution_id: str
    token: int
    owner: str
    ttl: timedelta
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSummary:
    """An execution without its contents: enough for lists and monitors.

    `attempt` counts successful claims. `version` counts applied checkpoints. `due_at` is when the bell is rung next if
    nothing happens, and None when no bell is due. `waits` are the waits of a paused execution, in the order in which
    they were written; a claim leaves them. `owner` and `lease_expires_at` belong to the last claim and are None once
    its lease was given back. `crashes` counts claims in a row that have recorded nothing, the living one included.
    `ended_at` is when it was over. `unreadable` says what is wrong with a damaged header, whose rest has defaults.
    """

    execution_id: str
    agent_id: str
    session_id: str | None = None
    user_id: str | None = None
    parent_execution_id: str | None = None
    idempotency_key: str | None = None
    queue: str | None = None
    priority: int | None = None
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    state: AgentState
    waits: tuple[Wait, ...] = ()
    error: ErrorInfo | None = None
    version: int = 0
    attempt: int = 0
    crashes: int = 0
    step_count: int = 0
    cancel_requested: bool = False
    owner: str | None = None
    lease_expires_at: datetime | None = None
    due_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    unreadable: str | None = None

    @property
    def waiting(self) -> Wait | None:
        """The first of `waits`; None if there are none."""
        return self.waits[0] if self.waits else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentContext(ExecutionSummary):
    """The whole state of an execution, read in one consistent look.

    `signals` is the unconsumed part of the mailbox, oldest first. `last_checkpoint` is the id of the last applied
    checkpoint, "" before the first one.
    """

    input: JSONValue = None
    output: JSONValue = None
    steps: tuple[AgentStep, ...] = ()
    memory: Memory = field(default_factory=Memory)
    rag_context: tuple[RagChunk, ...] = ()
    signals: tuple[Signal, ...] = ()
    last_checkpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A successful claim: the lease and the context under it. `now` is the store's time of the claim."""

    lease: Lease
    context: AgentContext
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """The outcome of one `renew` call, by execution id: lost leases, and executions whose cancel is asked for."""

    lost: frozenset[str] = frozenset()
    cancel_requested: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """The outcome of one `checkpoint`.

    `cancel_requested`: a cancel is in the mailbox. `due_now`: the execution paused on something that is there already,
    so its bell should be rung at once. `is_watched`: see `Appended`.
    """

    version: int
    cancel_requested: bool
    due_now: bool = False
    is_watched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The outcome of one `send`: whether the execution was paused and is now due, so that a bell should be rung."""

    woke: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An execution whose `due_at` has passed: what the sweeper needs to ring its bell.

    `token` is its last fencing token (0: never claimed) and `rings` how often the bell was rung since something last
    happened. `over` is true for a finished execution whose end was never announced.
    """

    execution_id: str
    agent_id: str
    queue: str | None
    priority: int | None
    token: int
    rings: int
    cancel_requested: bool
    over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The answer of `take_rate`.

    If `is_taken`, the turn is the caller's, `wait` from now. Otherwise nothing is taken, and the caller may ask again
    after `wait`: if it `is_promised`, as a caller that was promised that time.
    """

    wait: timedelta
    is_taken: bool
    is_promised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of `find`, newest first. `next_cursor` is None on the last page."""

    items: tuple[ExecutionSummary, ...]
    next_cursor: str | None
