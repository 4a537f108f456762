"""Ringing, by which code that knows no broker gets an execution worked on."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from agent_statestore.records import ExecutionSummary

# Publishes the bell of an execution that can go on at once. A sweeper makes up for a failure.
Ring: TypeAlias = Callable[[ExecutionSummary], None]

# Publishes the first bells of new executions that are alike; see `Services.ring_first`.
RingFirst: TypeAlias = Callable[[Sequence[ExecutionSummary]], None]

# Raises `InvalidRecord` for a queue on which no bell could ever be rung. None is the host's default.
CheckQueue: TypeAlias = Callable[[str | None], None]
