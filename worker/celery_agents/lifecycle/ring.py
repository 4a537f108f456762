"""Ringing: how code that knows no broker has an execution worked on."""

from collections.abc import Callable
from typing import TypeAlias

from agent_statestore.records import ExecutionSummary

# Publishes the bell of an execution that can go on at once. What fails is left to a sweeper.
Ring: TypeAlias = Callable[[ExecutionSummary], None]
