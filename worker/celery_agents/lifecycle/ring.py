"""Ringing, by which code that knows no broker gets an execution worked on."""

from collections.abc import Callable
from typing import TypeAlias

from agent_statestore.records import ExecutionSummary

# Publishes the bell of an execution that can go on at once. A sweeper makes up for a failure.
Ring: TypeAlias = Callable[[ExecutionSummary], None]

# Raises `InvalidRecord` for a queue on which no bell could ever be rung. None is the host's default.
CheckQueue: TypeAlias = Callable[[str | None], None]
