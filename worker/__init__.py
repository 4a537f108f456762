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
from worker.engine.run import Run
from worker.errors import (
    AgentsError,
    AnswerTimeout,
    ConfigurationError,
    DeadLetter,
    ExecutionCancelled,
    ExecutionFailed,
    InvalidAnswer,
    InvalidArguments,
    InvalidInput,
    InvalidResult,
    JournalMismatch,
    MaxStepsExceeded,
    NestedStep,
    RegistrationError,
    StepFailed,
    UnknownAgent,
)
from worker.execution import Execution
from worker.installing import install
from worker.registry import Registry
from worker.retry import Retry
from worker.tool import Tool, tool

__all__ = [  # noqa: RUF022 - grouped
    # defining
    "agent",
    "tool",
    "Agent",
    "Tool",
    "Run",
    "Retry",
    "Registry",
    # running
    "install",
    "enqueue",
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
    "StepFailed",
    "AnswerTimeout",
    "JournalMismatch",
    "NestedStep",
    "MaxStepsExceeded",
    "DeadLetter",
    "ExecutionFailed",
    "ExecutionCancelled",
]
