"""The errors of a store.

    StoreError
    |-- StoreUnavailable        the server cannot be reached, or answered with a fault; try again later
    |-- ExecutionNotFound       no context under this id
    |-- ExecutionOver           the execution is completed, failed or cancelled: nothing more is written to it
    |-- LeaseLost               the write carried a stale or expired fencing token
    |-- LeaseHeld               the write carried no lease while somebody else's lease lives
    |-- IllegalTransition       the state machine has no such arrow
    |-- CheckpointConflict      the last checkpoint is not the one that the write builds on
    |-- DocumentConflict        a document does not have the version that the write expects
    |-- NamespaceHeld           another execution writes to the documents of a namespace
    |-- StepConflict            a gap in the step numbers, or a recorded step that would be overwritten
    |-- SignalRefused
    |   |-- QuestionNotAsked    an answer that the execution does not wait for
    |   |-- AlreadyAnswered     the first answer won; this is the second
    |   `-- MailboxFull         the execution has as many signals in its mailbox as there may be
    |-- NoTransactions          a transactional step on a store that has no transactions to share
    |-- ForeignConnection       a connection of the caller's through which the store cannot write
    |-- IdempotencyConflict     the idempotency key of a new execution belongs to another one, with another input
    |-- ExecutionIdTaken        the chosen id of a new execution belongs to another one
    |-- IdempotencyKeyTaken     a restored execution's idempotency key belongs to another execution here
    |-- InvalidRecord (also ValueError)
    |   |-- NotSerialisable     a value that JSON cannot carry
    |   |-- ValueTooLarge       a value over the store's limit
    |   `-- ContextTooLarge     a write with which the whole context would be over the store's limit
    |-- FormatTooNew            written by a newer version of this package
    |-- ExecutionUnreadable     what is stored of an execution is damaged
    |-- DocumentUnreadable      what is stored of a document is damaged
    |-- SchemaMismatch          the SQL schema is older or newer than this package
    `-- StoreConfigurationError
        |-- UnknownScheme       no backend for this URL
        |-- MissingDriver       the backend's driver is not installed
        |-- UnsupportedURL      the backend cannot work with this URL
        `-- UnknownRevision     a migration target that does not exist

Constructors take facts and keep them as attributes; `__str__` makes the sentence. All of them survive pickling.
"""

from typing import Self


class StoreError(Exception):
    """Root of every error that a store raises on purpose."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or answered with a fault.

    It is unknown whether the write happened; repeating the same `Checkpoint` is safe.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"the store at {self.url} is not available: {self.reason}"


class ExecutionNotFound(StoreError):
    """No context is stored under this execution id."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id)
        self.execution_id = execution_id

    def __str__(self) -> str:
        return f"there is no execution {self.execution_id!r}"


class ExecutionOver(StoreError):
    """The execution is over; its context does not change any more."""

    def __init__(self, execution_id: str, state: str) -> None:
        super().__init__(execution_id, state)
        self.execution_id = execution_id
        self.state = state

    def __str__(self) -> str:
        return f"execution {self.execution_id} is over ({self.state})"


class LeaseLost(StoreError):
    """The fencing token is stale or its lease has run out. The writer must stop silently: another one goes on."""

    def __init__(self, execution_id: str, token: int) -> None:
        super().__init__(execution_id, token)
        self.execution_id = execution_id
        self.token = token

    def __str__(self) -> str:
        return f"the lease with token {self.token} on execution {self.execution_id} is lost"


class LeaseHeld(StoreError):
    """A write without a lease was refused because a worker holds one."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id)
        self.execution_id = execution_id

    def __str__(self) -> str:
        return f"execution {self.execution_id} is claimed: only the holder of its lease may write to it"


class IllegalTransition(StoreError):
    """The state machine has no arrow between these states."""

    def __init__(self, execution_id: str, current: str, new: str) -> None:
        super().__init__(execution_id, current, new)
        self.execution_id = execution_id
        self.current = current
        self.new = new

    def __str__(self) -> str:
        return f"execution {self.execution_id} cannot go from {self.current} to {self.new}"


class CheckpointConflict(StoreError):
    """The last checkpoint is not the one that a write builds on (`Checkpoint.after_checkpoint`)."""

    def __init__(self, execution_id: str, expected: str, found: str) -> None:
        super().__init__(execution_id, expected, found)
        self.execution_id = execution_id
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"the last checkpoint of execution {self.execution_id} is {self.found or 'none'}, and this write builds on "
            f"{self.expected or 'none'}: somebody else has written, or the store has lost a write that it had confirmed"
        )


class StepConflict(StoreError):
    """A step number that would leave a gap, or a recorded step that would be overwritten with something else."""

    def __init__(self, execution_id: str, step_number: int, recorded: int) -> None:
        super().__init__(execution_id, step_number, recorded)
        self.execution_id = execution_id
        self.step_number = step_number
        self.recorded = recorded

    def __str__(self) -> str:
        return (
            f"step {self.step_number} does not fit execution {self.execution_id}, which has {self.recorded} steps: "
            "steps are numbered without gaps and a recorded result is never replaced"
        )


class SignalRefused(StoreError):
    """Base of the refusals of `Store.send`."""

    def __init__(self, execution_id: str, key: str) -> None:
        super().__init__(execution_id, key)
        self.execution_id = execution_id
        self.key = key


class QuestionNotAsked(SignalRefused):
    """The execution does not wait for this answer."""

    def __str__(self) -> str:
        if not self.key:
            return f"execution {self.execution_id} does not wait for an answer"
        return f"execution {self.execution_id} has not asked {self.key!r}"


class AlreadyAnswered(SignalRefused):
    """Somebody else's answer came first."""

    def __str__(self) -> str:
        return f"question {self.key!r} of execution {self.execution_id} already has an answer"


class MailboxFull(SignalRefused):
    """The execution has `max_mailbox` signals in its mailbox that it has not taken yet; send it again later."""

    def __init__(self, execution_id: str, key: str, max_mailbox: int) -> None:
        super().__init__(execution_id, key)
        self.args = (execution_id, key, max_mailbox)
        self.max_mailbox = max_mailbox

    def __str__(self) -> str:
        return f"the mailbox of execution {self.execution_id} is full: it holds {self.max_mailbox} signals"


class NoTransactions(StoreError):
    """The store cannot share a transaction with a step. SQL stores can."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return f"the store at {self.url} has no transactions that a step could take part in: use a SQL store"


class ForeignConnection(StoreError):
    """The caller's connection is not in a transaction on the store's database."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the store at {self.url} cannot write through this connection: {self.reason}; `on_commit=` works with any "
            "store"
        )


class IdempotencyConflict(StoreError):
    """`Store.create` was refused: an execution with another input, or another parent, was created with the key.

    `execution_id` is the id of that execution.
    """

    def __init__(self, agent_id: str, idempotency_key: str, execution_id: str) -> None:
        super().__init__(agent_id, idempotency_key, execution_id)
        self.agent_id = agent_id
        self.idempotency_key = idempotency_key
        self.execution_id = execution_id

    def __str__(self) -> str:
        return (
            f"the idempotency key {self.idempotency_key!r} of agent {self.agent_id!r} belongs to execution "
            f"{self.execution_id}, which has another input or another parent"
        )


class ExecutionIdTaken(StoreError):
    """The id that was chosen for a new execution belongs to another one, which may be deleted."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id)
        self.execution_id = execution_id

    def __str__(self) -> str:
        return f"the execution_id {self.execution_id} belongs to another execution"


class IdempotencyKeyTaken(StoreError):
    """`Store.restore` was refused: another execution of the agent has the key."""

    def __init__(self, agent_id: str, idempotency_key: str) -> None:
        super().__init__(agent_id, idempotency_key)
        self.agent_id = agent_id
        self.idempotency_key = idempotency_key

    def __str__(self) -> str:
        return f"another execution of agent {self.agent_id!r} has the idempotency key {self.idempotency_key!r} here"


class InvalidRecord(StoreError, ValueError):
    """A record that breaks its rules: it is refused before anything is written. `field` names the culprit."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class NotSerialisable(InvalidRecord):
    """A value that JSON cannot carry (an object, NaN, a lone surrogate, a cycle)."""


class ValueTooLarge(InvalidRecord):
    """A value over the store's `max_value_bytes`."""

    def __init__(self, field: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(field, f"{size_bytes} bytes of JSON, but the limit is {limit_bytes}")
        self.args = (field, size_bytes, limit_bytes)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class ContextTooLarge(InvalidRecord):
    """A write after which everything that the execution keeps would be over the store's `max_context_bytes`."""

    def __init__(self, execution_id: str, size_bytes: int, limit_bytes: int) -> None:
        reason = f"execution {execution_id} would keep {size_bytes} bytes of JSON, but the limit is {limit_bytes}"
        super().__init__("context", reason)
        self.args = (execution_id, size_bytes, limit_bytes)
        self.execution_id = execution_id
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class FormatTooNew(StoreError):
    """Stored by a newer version of this package; nothing was changed. Upgrade this process."""

    def __init__(self, what: str, found: int, supported: int) -> None:
        super().__init__(what, found, supported)
        self.what = what
        self.found = found
        self.supported = supported

    def __str__(self) -> str:
        return (
            f"{self.what} has format version {self.found}, and this version of celery-agents reads up to "
            f"{self.supported}: upgrade celery-agents here"
        )


class ExecutionUnreadable(StoreError):
    """What is stored of an execution is damaged: no JSON, a field missing, steps that are not there.

    `part` names the damaged part; `execution_id` is "" where a server reports the damage without it. When `claim`
    raises it, the claim has succeeded: `lease` is the `Lease` with which the execution can be ended.
    """

    def __init__(self, execution_id: str, part: str, reason: str, lease: object = None) -> None:
        super().__init__(execution_id, part, reason, lease)
        self.execution_id = execution_id
        self.part = part
        self.reason = reason
        self.lease = lease

    def under(self, lease: object) -> Self:
        """Return the same error with the lease of the claim that met it."""
        return type(self)(self.execution_id, self.part, self.reason, lease)

    def __str__(self) -> str:
        return f"what is stored of execution {self.execution_id or '?'} is damaged: {self.part}: {self.reason}"


class SchemaMismatch(StoreError):
    """The database's schema is not the one that this version of the package needs."""

    def __init__(self, url: str, found: str | None, expected: str) -> None:
        super().__init__(url, found, expected)
        self.url = url
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return (
            f"the schema of {self.url} is at revision {self.found or 'none'}, and this version of celery-agents needs "
            f"{self.expected}: run `celery -A celery_agents agents migrate` (after -A your own app, if you have one), "
            "or upgrade celery-agents if the schema is newer"
        )


class StoreConfigurationError(StoreError):
    """The store cannot be opened as it is configured."""


# What others call these backends.
_SENTINELS = "redis+sentinel://host1:26379,host2:26379/0?service=mymaster"
_CLUSTER = "redis+cluster://host1:6379,host2:6379"
_MEANT = {
    **dict.fromkeys(("pg", "pgsql", "postgres", "psql", "psycopg"), "postgresql://"),
    **dict.fromkeys(("sentinel", "redis-sentinel", "rediss-sentinel", "redissentinel"), _SENTINELS),
    **dict.fromkeys(("cluster", "redis-cluster", "rediss-cluster", "rediscluster"), _CLUSTER),
    **dict.fromkeys(("sqlite3", "file", "db"), "sqlite:///file.db"),
    "valkeys": "rediss://",
    "mem": "memory://",
}


class UnknownScheme(StoreConfigurationError):
    """No installed backend takes this URL."""

    def __init__(self, scheme: str, known: tuple[str, ...] | list[str]) -> None:
        super().__init__(scheme, list(known))
        self.scheme = scheme
        self.known = tuple(known)

    def __str__(self) -> str:
        meant = _MEANT.get(self.scheme.partition("+")[0])
        hint = "" if meant is None else f": write {meant}"
        return f"unknown store scheme {self.scheme!r}{hint}; installed backends: {', '.join(self.known)}"


class MissingDriver(StoreConfigurationError):
    """The backend is known but its driver is not installed."""

    def __init__(self, scheme: str, package: str, extra: str) -> None:
        super().__init__(scheme, package, extra)
        self.scheme = scheme
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"the store {self.scheme}:// needs the package {self.package!r}: pip install 'celery-agents[{self.extra}]'"
        )


class UnsupportedURL(StoreConfigurationError):
    """The backend of this URL's scheme cannot work with the rest of it."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use {self.url} as a store: {self.reason}"


class UnknownRevision(StoreConfigurationError):
    """A migration target that does not exist."""

    def __init__(self, revision: str, reason: str) -> None:
        super().__init__(revision, reason)
        self.revision = revision
        self.reason = reason

    def __str__(self) -> str:
        return f"no such schema revision {self.revision!r}: {self.reason}"
