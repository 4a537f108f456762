"""Durable AI-agent executions on Celery.

    @agent
    def research(run: Run, question: str) -> str:
        hits = run.step("search", search, question)
        return run.step("summarise", summarise, hits)

    execution = research.enqueue("Why is the sky blue?")
    execution.wait()

A killed worker's execution goes on from its last recorded step on another one.
"""

from worker.agent import Agent, agent
from worker.client import enqueue, get_execution
from worker.crash_policy import CrashPolicy, Happened
from worker.cron import schedule
from worker.engine.async_run import AsyncRun
from worker.engine.children import Child
from worker.engine.run import Run
from worker.errors import (
    AgentsError,
    AnswerTimeout,
    ApprovalDenied,
    ApprovalExpired,
    BudgetExceeded,
    ChildFailed,
    ConfigurationError,
    DeadLetter,
    DeadlineExceeded,
    EventTimeout,
    ExecutionCancelled,
    ExecutionFailed,
    InvalidAnswer,
    InvalidArguments,
    InvalidDecision,
    InvalidInput,
    InvalidResult,
    JournalMismatch,
    LimitExceeded,
    MaxStepsExceeded,
    MaxTurnsExceeded,
    MemoryInParallel,
    NestedStep,
    NoApprovalAsked,
    NotAwaited,
    RegistrationError,
    SessionBusy,
    SpawnTooDeep,
    StepFailed,
    StepInterrupted,
    StepTimeout,
    UnknownAgent,
    UnknownTool,
)
from worker.execution import Execution
from worker.installing import install
from worker.loop import (
    AskUser,
    Complete,
    Decision,
    LoopAction,
    LoopContext,
    LoopResult,
    Respond,
    Think,
    ToolCall,
    ToolDescription,
    Usage,
    UseTool,
    UseTools,
    Wait,
    action_from_chat,
    loop_agent,
)
from worker.registry import Registry
from worker.retry import Retry
from worker.tool import Tool, ToolContext, tool

__all__ = [  # noqa: RUF022 - grouped
    # defining
    "agent",
    "tool",
    "Agent",
    "Tool",
    "ToolContext",
    "CrashPolicy",
    "Happened",
    "Run",
    "AsyncRun",
    "Child",
    "Retry",
    "Registry",
    # loop agents
    "loop_agent",
    "LoopContext",
    "LoopResult",
    "ToolDescription",
    "LoopAction",
    "Think",
    "UseTool",
    "UseTools",
    "ToolCall",
    "AskUser",
    "Respond",
    "Wait",
    "Complete",
    "Decision",
    "Usage",
    "action_from_chat",
    # running
    "install",
    "enqueue",
    "schedule",
    "get_execution",
    "Execution",
    # errors
    "AgentsError",
    "ConfigurationError",
    "RegistrationError",
    "UnknownAgent",
    "InvalidInput",
    "InvalidArguments",
    "InvalidAnswer",
    "InvalidResult",
    "InvalidDecision",
    "UnknownTool",
    "StepFailed",
    "StepTimeout",
    "StepInterrupted",
    "AnswerTimeout",
    "ApprovalDenied",
    "ApprovalExpired",
    "NoApprovalAsked",
    "EventTimeout",
    "ChildFailed",
    "SpawnTooDeep",
    "SessionBusy",
    "JournalMismatch",
    "NestedStep",
    "NotAwaited",
    "MemoryInParallel",
    "LimitExceeded",
    "MaxStepsExceeded",
    "MaxTurnsExceeded",
    "DeadlineExceeded",
    "BudgetExceeded",
    "DeadLetter",
    "ExecutionFailed",
    "ExecutionCancelled",
]
