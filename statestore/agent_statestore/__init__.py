"""Durable state of agent executions: records, the store protocol, and its backends. Useful without Celery.

with open_store("sqlite:///agents.db") as store:
    context = store.create_context("greeter", {"name": "Ada"})
"""

from agent_statestore.checkpoint import Checkpoint, NewExecution
from agent_statestore.clock import Clock, ManualClock, SystemClock
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.contract import StepTransaction
from agent_statestore.errors import (
    AlreadyAnswered,
    CheckpointConflict,
    ContextTooLarge,
    ExecutionNotFound,
    ExecutionOver,
    ExecutionUnreadable,
    FormatTooNew,
    IdempotencyConflict,
    IdempotencyKeyTaken,
    IllegalTransition,
    InvalidRecord,
    LeaseHeld,
    LeaseLost,
    MailboxFull,
    MissingDriver,
    NoTransactions,
    NotSerialisable,
    QuestionNotAsked,
    SchemaMismatch,
    SignalRefused,
    StepConflict,
    StoreConfigurationError,
    StoreError,
    StoreUnavailable,
    UnknownRevision,
    UnknownScheme,
    UnsupportedURL,
    ValueTooLarge,
)
from agent_statestore.memory import MemoryStore
from agent_statestore.opening import open_store
from agent_statestore.query import Query
from agent_statestore.records import (
    Action,
    AgentContext,
    AgentStep,
    AuditEntry,
    AuditEvent,
    Checkpointed,
    Claim,
    Due,
    ErrorInfo,
    ExecutionSummary,
    JSONValue,
    Lease,
    Memory,
    Message,
    Page,
    RagChunk,
    Renewed,
    Result,
    Sent,
    Signal,
    SignalKind,
    StepChanges,
    Turn,
    Wait,
    WaitKind,
)
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.watch import Watch

__all__ = [  # noqa: RUF022 - grouped
    # stores
    "open_store",
    "Store",
    "MemoryStore",
    # what is read
    "AgentContext",
    "ExecutionSummary",
    "AgentState",
    "AgentStep",
    "Action",
    "Result",
    "ErrorInfo",
    "StepChanges",
    "Memory",
    "Message",
    "RagChunk",
    "Wait",
    "WaitKind",
    "Signal",
    "SignalKind",
    "AuditEntry",
    "AuditEvent",
    "Query",
    "Page",
    "JSONValue",
    # what is written
    "NewExecution",
    "Checkpoint",
    "ExportedExecution",
    # the outcomes of primitives
    "Lease",
    "Claim",
    "Renewed",
    "Checkpointed",
    "Sent",
    "Due",
    "Turn",
    "Watch",
    "StepTransaction",
    # time
    "Clock",
    "SystemClock",
    "ManualClock",
    # errors
    "StoreError",
    "StoreUnavailable",
    "ExecutionNotFound",
    "ExecutionOver",
    "LeaseLost",
    "MailboxFull",
    "LeaseHeld",
    "IllegalTransition",
    "StepConflict",
    "SignalRefused",
    "QuestionNotAsked",
    "AlreadyAnswered",
    "IdempotencyConflict",
    "IdempotencyKeyTaken",
    "NoTransactions",
    "InvalidRecord",
    "NotSerialisable",
    "ValueTooLarge",
    "CheckpointConflict",
    "ContextTooLarge",
    "ExecutionUnreadable",
    "FormatTooNew",
    "SchemaMismatch",
    "StoreConfigurationError",
    "UnknownScheme",
    "MissingDriver",
    "UnsupportedURL",
    "UnknownRevision",
]
