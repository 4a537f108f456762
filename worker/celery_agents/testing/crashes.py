"""Deaths that a test plans: the process dies at a chosen moment of a chosen step, and the dead write nothing more."""

import threading
from dataclasses import dataclass, field
from enum import StrEnum

from agent_statestore.records import Lease


class When(StrEnum):
    """The moment of a step at which the process dies.

    `BEFORE_INTENT`: before anything of the step is recorded or done. `AFTER_INTENT`: what is recorded before a call is
    (nothing, where the policy is `on_crash="retry"`), and the function was not called yet; of a question, that it is
    asked. `BEFORE_CHECKPOINT`: the function has returned, the effect has happened, and the
    result is not recorded. `AFTER_CHECKPOINT`: the result is recorded, and the agent has not seen it. To die inside the
    effect, let the function raise `Crash`.
    """

    BEFORE_INTENT = "before_intent"
    AFTER_INTENT = "after_intent"
    BEFORE_CHECKPOINT = "before_checkpoint"
    AFTER_CHECKPOINT = "after_checkpoint"


class Crash(SystemExit):
    """Stands for the death of the process: nothing that catches `Exception` sees it, and nothing records it."""


@dataclass(kw_only=True)
class PlannedCrash:
    """A death that was planned, after so many claims. `happened` counts how often it came about."""

    step: str
    when: When
    execution_id: str | None = None
    times: int = 1
    required: bool = True
    since: int = 0
    happened: int = 0

    def fits(self, when: When, execution_id: str, key: str) -> bool:
        """Whether it is to happen here."""
        return (
            self.happened < self.times
            and (self.when, self.step) == (when, key)
            and self.execution_id in (None, execution_id)
        )


@dataclass
class Crashes:
    """The planned deaths, and the claims that have died. Steps beside each other may die at once: thread-safe.

    `reached` are the moments that executions came to, by execution and key.
    """

    planned: list[PlannedCrash] = field(default_factory=list)
    reached: dict[tuple[str, str], set[When]] = field(default_factory=dict)
    _dead: set[tuple[str, int]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def come_to(self, when: When, lease: Lease, *keys: str) -> None:
        """A claim has come to this moment of these steps. Raises `Crash` if that was planned."""
        self.check_alive(lease)
        with self._lock:
            for key in keys:
                self.reached.setdefault((lease.execution_id, key), set()).add(when)
            for plan in self.planned:
                if any(plan.fits(when, lease.execution_id, key) for key in keys):
                    plan.happened += 1
                    self._dead.add((lease.execution_id, lease.token))
                    raise Crash

    def die(self, lease: Lease) -> None:
        """This claim has died by itself."""
        with self._lock:
            self._dead.add((lease.execution_id, lease.token))

    def check_alive(self, lease: Lease) -> None:
        """Raises `Crash` for a claim that has died: while its code is unwound it does nothing that the dead do not."""
        if (lease.execution_id, lease.token) in self._dead:
            raise Crash
