"""The last write of an attempt: the execution is over, or it waits. Nothing can be written after it."""

from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn, TypeAlias

from agent_statestore.checkpoint import Checkpoint, state_of
from agent_statestore.codec import encode_checkpoint
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import AgentContext, AgentStep, Wait, WaitKind
from agent_statestore.states import AgentState
from celery_agents.engine.course import Course
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.recorder import Recorder
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.errors import InvalidResult

# Notes, before an execution pauses, who is to be told what it asks people; see `LastWrite`.
BeforePause: TypeAlias = Callable[[AgentContext, tuple[Wait, ...]], object]


class LastWrite:
    """Writes how the work on one claim ends.

    `announce_within` tells how long the host has to tell of an end before a sweeper rings for it; None if nobody has to
    be told of it, so that nothing is left to do. `before_pause` is called before the execution waits for people, if
    anybody is to be told of that; calling it again, also in a later attempt, must change nothing.
    """

    def __init__(
        self,
        context: AgentContext,
        course: Course,
        recorder: Recorder,
        *,
        max_value_bytes: int,
        announce_within: Callable[[], timedelta | None],
        before_pause: BeforePause | None = None,
    ) -> None:
        self._context = context
        self._course = course
        self._recorder = recorder
        self._max_value_bytes = max_value_bytes
        self._announce_within = announce_within
        self._before_pause = before_pause

    def check_pause(self, waits: tuple[Wait, ...], intents: tuple[AgentStep, ...] = ()) -> None:
        """Raise `InvalidRecord` for a pause that cannot be stored: a prompt is too large, say."""
        encode_checkpoint(Checkpoint(steps=intents, state=state_of(waits), waits=waits), self._max_value_bytes)

    def pause(self, waits: tuple[Wait, ...], intents: tuple[AgentStep, ...] = ()) -> Outcome:
        """Write that the execution waits, which gives the lease back; called by `Course.pause`."""
        if self._before_pause is not None:
            self._note(self._before_pause, waits)
        refused = next((wait.refused for wait in waits if wait.refused is not None), None)
        paused = self._recorder.write(steps=intents, state=state_of(waits), waits=waits, reason=refused)
        return Outcome(ending=Ending.PAUSED, waits=waits, ring=paused.due_now)

    def _note(self, before_pause: BeforePause, waits: tuple[Wait, ...]) -> None:
        asking = tuple(wait for wait in waits if wait.kind in (WaitKind.INPUT, WaitKind.APPROVAL))
        if asking:
            patience = self._course.patience("a webhook", "could not be noted")
            patience.ask(lambda: before_pause(self._context, asking))

    def end(self, outcome: Outcome) -> Outcome:
        """Write the outcome, if it is an end, and return what is written: a failure if the output cannot be stored.

        A pause was written where it happened. Where another claim goes on, nothing is to be written.
        """
        if self._course.is_written:
            return outcome
        if outcome.ending is Ending.COMPLETED:
            try:
                self._end(state=AgentState.COMPLETED, output=outcome.output)
            except InvalidRecord as error:
                failure = InvalidResult(self._context.agent_id, [str(error)])
                outcome = Outcome(ending=Ending.FAILED, error=failure)
        if outcome.ending is Ending.FAILED:
            assert outcome.error is not None
            info = describe(outcome.error, with_traceback=True)
            try:
                self._end(state=AgentState.FAILED, error=info)
            except InvalidRecord:
                self._recorder.forget_pending()
                self._end(state=AgentState.FAILED, error=info)
        elif outcome.ending is Ending.CANCELLED:
            self._end(state=AgentState.CANCELLED)
        return outcome

    def give_up(self, error: Exception, step: AgentStep) -> NoReturn:
        """End the execution at once, with a last word on a step, and unwind the agent.

        What is in flight is not waited for: it may be what takes down every process.
        """
        with self._course.lock:
            self._end(state=AgentState.FAILED, error=describe(error, with_traceback=True), steps=(step,))
            self._course.stop(Outcome(ending=Ending.FAILED, error=error))

    def _end(self, **change: object) -> None:
        self._course.write_last(self._recorder.write, announce_within=self._announce_within(), **change)
