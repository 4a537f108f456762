"""One attempt at an execution: the facts of a claim, and the parts that every durable operation of a run stands on."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from agent_statestore.records import AgentContext
from celery_agents.engine.course import Course
from celery_agents.engine.environment import Environment
from celery_agents.engine.events import Announcements
from celery_agents.engine.journal.journal import Journal
from celery_agents.engine.journal.last_write import LastWrite
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.journal.recorder import Recorder
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.limits import Limits
from celery_agents.engine.mailbox import Mailbox
from celery_agents.engine.patience import Patience
from celery_agents.engine.stage import Stage
from celery_agents.engine.steps.scope import Nesting
from celery_agents.engine.stream.outlet import Outlet

R = TypeVar("R")


@dataclass(kw_only=True, eq=False)
class Attempt:
    """What one claim has.

    Attributes:
        context: the execution as the claim found it.
        max_value_bytes: the size of the largest value that the store takes.
        environment: what the process gives.
        stage: what a test kit puts in the place of the world; a worker's attempts have none.
        now: returns the time on the store's clock.
        held: the lease.
        course: whether the attempt goes on, what is in flight, and how it ends.
        nesting: which steps the code that runs right now is inside of.
        memory: what the agent writes besides its steps.
        mailbox: the signals that the execution was sent before.
        journal: the steps that are recorded.
        recorder: writes steps.
        last_write: writes the end, or that the execution waits.
        limits: what the execution may use.
        events: tells the subscribers, if there are any.
        retries: how many there have been.
        outlet: what it says into its stream; None where streams are off.
    """

    context: AgentContext
    max_value_bytes: int
    environment: Environment
    stage: Stage | None
    now: Callable[[], datetime]
    held: HeldLease
    course: Course
    nesting: Nesting
    memory: RunMemory
    mailbox: Mailbox
    journal: Journal
    recorder: Recorder
    last_write: LastWrite
    limits: Limits
    events: Announcements | None
    retries: int
    outlet: Outlet | None = None

    def has_begun(self, key: str) -> bool:
        """Return whether the step of this key, or its intent, is recorded, or is what the execution was paused on."""
        return self.journal.has(key) or any(wait.key == key for wait in self.recorder.paused_on)

    def may_retry(self) -> bool:
        """Count one more retry of this execution; return False if it has had all that it may have."""
        with self.course.lock:
            self.retries += 1
            return self.retries <= self.environment.max_retries

    def patience(self) -> Patience:
        """Return patience with a store that does not answer, up to the lease's end.

        Nothing is in flight meanwhile, so each wait is a step boundary, too.
        """
        return self.course.patience("the store", "does not answer", between=self.course.enter_boundary)

    def ask_store(self, question: Callable[[], R]) -> R:
        """Ask the store something, with patience."""
        return self.patience().ask(question)
