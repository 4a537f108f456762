"""Durable AI-agent executions on Celery.

    @agent
    def research(run: Run, question: str) -> str:
        hits = run.step("search", search, question)
        return run.step("summarise", summarise, hits)

    execution = research.enqueue("Why is the sky blue?")
    execution.wait()

When a worker is killed, its executions go on from their last recorded step on another one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from celery_agents.client.execution import Execution
    from celery_agents.current import enqueue, enqueue_many, get_execution, get_session
    from celery_agents.decorators import Agent, agent, tool
    from celery_agents.define.arguments import ToolContext
    from celery_agents.define.called_as import CalledAs
    from celery_agents.define.crash_policy import CrashPolicy, Happened
    from celery_agents.define.long_term_memory import BufferMemory, HybridMemory, Recollection, VectorMemory
    from celery_agents.define.names import step_name
    from celery_agents.define.registry import Registry
    from celery_agents.define.retry import Retry
    from celery_agents.define.saying import CallInterrupted, Saying
    from celery_agents.define.tool import Tool
    from celery_agents.engine.events import Event, EventKind
    from celery_agents.engine.outcome import ExecutionUnwound
    from celery_agents.engine.pauses.child import Child
    from celery_agents.engine.pauses.job import Finished
    from celery_agents.engine.run.async_run import AsyncRun
    from celery_agents.engine.run.current_run import current_run, current_step, current_stream, spend
    from celery_agents.engine.run.run import Run
    from celery_agents.engine.thread_ends import at_thread_end
    from celery_agents.errors import (
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
        InvalidEvent,
        InvalidInput,
        InvalidResult,
        JobTimeout,
        JournalMismatch,
        LimitExceeded,
        MaxStepsExceeded,
        MaxTurnsExceeded,
        NoApprovalAsked,
        RegistrationError,
        SessionBusy,
        SpawnTooDeep,
        StepFailed,
        StepInterrupted,
        StepTimeout,
        TooManyDescendants,
        UnknownAgent,
        UnknownTool,
    )
    from celery_agents.host.cron import schedule
    from celery_agents.host.install import install
    from celery_agents.lifecycle.signals import SeveralAsked
    from celery_agents.loop import (
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
        WaitFor,
        action_from_chat,
        loop_agent,
    )
    from celery_agents.misuse import (
        GroupEnded,
        MemoryInGroup,
        MemoryInParallel,
        NestedStep,
        NotAwaited,
        SpentInVain,
        StepInThread,
        WaitInsideAgent,
    )

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
    "ExecutionUnwound",
    "current_run",
    "current_step",
    "current_stream",
    "spend",
    "step_name",
    "CalledAs",
    "Child",
    "Finished",
    "Retry",
    "Registry",
    "BufferMemory",
    "VectorMemory",
    "HybridMemory",
    "Recollection",
    "Saying",
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
    "WaitFor",
    "Complete",
    "Decision",
    "Usage",
    "action_from_chat",
    # running
    "install",
    "at_thread_end",
    "Event",
    "EventKind",
    "enqueue",
    "enqueue_many",
    "schedule",
    "get_execution",
    "get_session",
    "Execution",
    # errors
    "AgentsError",
    "ConfigurationError",
    "RegistrationError",
    "UnknownAgent",
    "InvalidInput",
    "InvalidArguments",
    "InvalidAnswer",
    "InvalidEvent",
    "InvalidResult",
    "InvalidDecision",
    "UnknownTool",
    "WaitInsideAgent",
    "StepFailed",
    "StepTimeout",
    "StepInterrupted",
    "CallInterrupted",
    "AnswerTimeout",
    "ApprovalDenied",
    "ApprovalExpired",
    "NoApprovalAsked",
    "SeveralAsked",
    "EventTimeout",
    "JobTimeout",
    "ChildFailed",
    "SpawnTooDeep",
    "TooManyDescendants",
    "SessionBusy",
    "JournalMismatch",
    "NestedStep",
    "StepInThread",
    "NotAwaited",
    "MemoryInParallel",
    "MemoryInGroup",
    "GroupEnded",
    "SpentInVain",
    "LimitExceeded",
    "MaxStepsExceeded",
    "MaxTurnsExceeded",
    "DeadlineExceeded",
    "BudgetExceeded",
    "DeadLetter",
    "ExecutionFailed",
    "ExecutionCancelled",
]

# Where each name lives. A name is imported when it is first used: every `celery` command of every project in which this
# package is installed imports this file, and must not pay for what it does not use.
_MODULES: Final = {
    "client.execution": ("Execution",),
    "current": (
        "enqueue",
        "enqueue_many",
        "get_execution",
        "get_session",
    ),
    "decorators": (
        "Agent",
        "agent",
        "tool",
    ),
    "define.arguments": ("ToolContext",),
    "define.called_as": ("CalledAs",),
    "define.crash_policy": (
        "CrashPolicy",
        "Happened",
    ),
    "define.long_term_memory": ("BufferMemory", "HybridMemory", "Recollection", "VectorMemory"),
    "define.names": ("step_name",),
    "define.registry": ("Registry",),
    "define.retry": ("Retry",),
    "define.saying": ("CallInterrupted", "Saying"),
    "define.tool": ("Tool",),
    "engine.events": ("Event", "EventKind"),
    "engine.outcome": ("ExecutionUnwound",),
    "engine.pauses.child": ("Child",),
    "engine.pauses.job": ("Finished",),
    "engine.run.async_run": ("AsyncRun",),
    "engine.run.current_run": ("current_run", "current_step", "current_stream", "spend"),
    "engine.run.run": ("Run",),
    "engine.thread_ends": ("at_thread_end",),
    "errors": (
        "AgentsError",
        "AnswerTimeout",
        "ApprovalDenied",
        "ApprovalExpired",
        "BudgetExceeded",
        "ChildFailed",
        "ConfigurationError",
        "DeadLetter",
        "DeadlineExceeded",
        "EventTimeout",
        "ExecutionCancelled",
        "ExecutionFailed",
        "InvalidAnswer",
        "InvalidEvent",
        "InvalidArguments",
        "InvalidDecision",
        "InvalidInput",
        "InvalidResult",
        "JobTimeout",
        "JournalMismatch",
        "LimitExceeded",
        "MaxStepsExceeded",
        "MaxTurnsExceeded",
        "NoApprovalAsked",
        "RegistrationError",
        "SessionBusy",
        "SpawnTooDeep",
        "StepFailed",
        "StepInterrupted",
        "StepTimeout",
        "TooManyDescendants",
        "UnknownAgent",
        "UnknownTool",
    ),
    "host.cron": ("schedule",),
    "host.install": ("install",),
    "lifecycle.signals": ("SeveralAsked",),
    "loop": (
        "AskUser",
        "Complete",
        "Decision",
        "LoopAction",
        "LoopContext",
        "LoopResult",
        "Respond",
        "Think",
        "ToolCall",
        "ToolDescription",
        "Usage",
        "UseTool",
        "UseTools",
        "WaitFor",
        "action_from_chat",
        "loop_agent",
    ),
    "misuse": (
        "GroupEnded",
        "MemoryInGroup",
        "MemoryInParallel",
        "NestedStep",
        "NotAwaited",
        "SpentInVain",
        "StepInThread",
        "WaitInsideAgent",
    ),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
