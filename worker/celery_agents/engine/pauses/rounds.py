"""A question whose answer is of no use is asked anew: the reason is recorded, and the question gets its next round.

The door checks an answer before it is sent. It may know less than the worker: it may lack the code, or have another
version of it. An answer counts once, so without a new round one wrong answer would fail the execution for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agent_statestore.records import Action, AgentStep, Signal
from celery_agents.engine.attempt import Attempt

_LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How often a question is asked: the number of this time, why the time before was of no use, and since when."""

    number: int = 1
    refused: str | None = None
    since: datetime | None = None

    @classmethod
    def of(cls, intent: AgentStep | None) -> "Round":
        """Return the round that an open question is in, from the intent of its step, if there is one."""
        if intent is None or intent.round == 1:
            return FIRST
        return cls(number=intent.round, refused=intent.refused, since=intent.timestamp)

    def on(self, step: AgentStep) -> AgentStep:
        """Return the step with this round on record."""
        return replace(step, round=self.number, refused=self.refused)

    def refuse(
        self,
        attempt: Attempt,
        key: str,
        action: Action,
        signal: Signal,
        problems: Sequence[str],
        since: datetime,
        intent: AgentStep | None = None,
        what: str | None = None,
    ) -> "Round":
        """Record that an answer is of no use, and return the round in which the question is asked anew.

        `what` names what came, if it is no answer.

        The record is an intent of the step that asks, or `intent` with the round. Its write takes the answer out of the
        mailbox, so the answer is neither lost nor taken again.
        """
        who = f" of {signal.sender}" if signal.sender else ""
        what = what or f"round {self.number}, the answer"
        reason = f"{what}{who}: {'; '.join(problems)}"[:_LONGEST_REASON]
        # A text of a validator's may be anything, and must be stored.
        reason = reason.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
        coming = Round(number=self.number + 1, refused=reason, since=since)
        with attempt.course.lock:
            step = intent or attempt.recorder.make_step(key, action, None, started=since)
            attempt.recorder.record(coming.on(step))
        return coming


FIRST: Final = Round()
