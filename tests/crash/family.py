"""A parent and its children, each of which has one effect on the outside. Imported by a worker, which it watches."""

import os
import signal
import time
from typing import Any, Final

import pydantic

from agent_statestore import ExecutionSummary, NewExecution
from celery_agents import Happened, Run, ToolContext, agent, tool
from celery_agents.lifecycle.relatives import Family
from tests.crash.effects import Outside
from tests.crash.ledger import FOLDER_VARIABLE, STARTED, Ledger
from tests.crash.patching import put

# Where the process of the parent dies while it starts its children.
CREATED: Final = "a child is created, and nobody knows"
RUNG: Final = "a child is created and its bell is rung, and the parent does not know"

PARENT: Final = 0


class Brood(pydantic.BaseModel):
    """The input: how many children, how long each takes, and at which the parent dies."""

    children: int
    child_seconds: float = 0.0
    dies_at: dict[str, int] = {}


@agent(name="crash.parent", max_attempts=50)
def parent(run: Run, input: Brood) -> int:
    """Starts all, and adds up what they return."""
    _parent.attempt, _parent.execution_id, _parent.dies_at = run.attempt, run.execution_id, input.dies_at
    Ledger.of_this_worker().note(STARTED, run.execution_id, PARENT, run.attempt)
    children = [
        run.spawn(child, (number, input.child_seconds), name=f"child {number}")
        for number in range(1, input.children + 1)
    ]
    return sum(run.gather(*children))


@agent(name="crash.child", max_attempts=50)
def child(run: Run, input: tuple[int, float]) -> int:
    """Has its effect, and returns its number."""
    number, seconds = input
    Ledger.of_this_worker().note(STARTED, run.execution_id, number, run.attempt)
    return run.tool(work, number, seconds)


def _look(number: int, seconds: float, this: ToolContext) -> Happened | None:
    tokens = Outside.of_this_worker().tokens(f"child {number}")
    return Happened(number) if this.execution_id in tokens else None


@tool(name="crash.work_of_child", on_crash=_look)
def work(number: int, seconds: float, this: ToolContext) -> int:
    """The effect, in the middle of the time that it takes."""
    time.sleep(seconds / 2)
    with Outside.of_this_worker().effect(f"child {number}", this.execution_id):
        pass
    time.sleep(seconds / 2)
    return number


class _Parent:
    """What the parent's process knows of it."""

    execution_id = ""
    attempt = 0
    dies_at: dict[str, int] = {}  # noqa: RUF012 - replaced, never changed
    key = ""

    def die_at(self, place: str) -> None:
        if self.key.endswith(f"/child {self.dies_at.get(place)}"):
            ledger = Ledger.of_this_worker()
            if not any(ledger.rows(place)):
                ledger.note(place, self.execution_id, PARENT, self.attempt)
                os.kill(os.getpid(), signal.SIGKILL)


_parent = _Parent()
_create = Family.create
_announce = Family.announce


def _watched_create(self: Family, wanted: NewExecution, step: str) -> Any:
    created = _create(self, wanted, step)
    _parent.key = wanted.idempotency_key or ""
    _parent.die_at(CREATED)
    return created


def _watched_announce(self: Family, child: ExecutionSummary, *options: Any) -> None:
    _announce(self, child, *options)
    _parent.die_at(RUNG)


if FOLDER_VARIABLE in os.environ:  # in a worker
    put(Family, "create", _watched_create)
    put(Family, "announce", _watched_announce)
