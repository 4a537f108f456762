"""`run.wait_job`: a pause until a job that another service works on has finished.

The job is looked at on a durable timer, and at once when an event of its name comes. In between nothing of it is in any
worker. A look is no step: it is repeated after a crash, so it must only look. What it finds in the end is recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import NoneType
from typing import Any, Final

import pydantic

from agent_statestore.records import Action, JSONValue, Result, SignalKind, Wait, WaitKind
from celery_agents.define import types
from celery_agents.define.names import check_duration, check_event_name
from celery_agents.define.retry import NO_RETRY, Retry
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.limit import enter_wait
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.signal import Standing, began
from celery_agents.engine.pauses.wait import conclude
from celery_agents.engine.run.event_loop import Interrupted
from celery_agents.engine.steps.work import PlainWork, Try
from celery_agents.errors import InvalidResult, JobTimeout, JournalMismatch

DEFAULT_EVERY: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a job's `poll` returns when the job has finished: what came of it."""

    output: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the code waits for it.

    `submitted` is what the service gave for it, `label` the name of the step that submitted it. `poll` is called with
    `submitted` and returns `Finished`, or None; `every` lies between two calls. `retry` says how many calls in a row
    may fail. `returns` is the type of what comes of the job. An event named `event` has the job looked at, at once.
    """

    label: str
    submitted: JSONValue
    poll: Callable[[Any], Any]
    every: timedelta
    timeout: timedelta | None
    event: str | None
    retry: Retry | None
    returns: types.Adapter
    call_timeout: timedelta | None

    def __post_init__(self) -> None:
        if not callable(self.poll):
            raise TypeError(f"poll needs a function of what the submitting step returned, not {self.poll!r:.80}")
        check_duration(self.label, "every", self.every)
        if self.timeout is not None:
            check_duration(self.label, "timeout", self.timeout)
        if self.event is not None:
            check_event_name(self.event)

    @property
    def name(self) -> str:
        """The name of its step: that of the step that submitted it stands in it."""
        return f"job {self.label}"

    def take(self, attempt: Attempt, key: str) -> Any:
        """Return what came of the job; unwind the agent until then. Raise `JobTimeout`, and what `poll` raises."""
        action = Action(kind="job", input=self.submitted)
        recorded = attempt.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            return self._replayed(key, recorded.result)
        kind, address = (WaitKind.TIMER, key) if self.event is None else (WaitKind.EVENT, self.event)
        since = began(attempt, kind, address, key)
        # Before an event is taken: it goes with the next write, which may be the question whether to go on.
        enter_wait(attempt, standing=Standing(kind=kind, key=address, step=key, since=since))
        looks = _Looks.so_far(attempt.recorder.paused_on.find(kind, address), key)
        was_told = self._was_told(attempt)
        if was_told or looks.next_at is None or attempt.now() >= looks.next_at:
            result = self._look(attempt, key, looks)
            if result is None and self.timeout is not None and attempt.now() >= since + self.timeout:
                result = Result(success=False, error=describe(JobTimeout(self.label, self.timeout.total_seconds())))
            if result is not None:
                return self._replayed(key, conclude(attempt, key, action, result, since))
            if key in attempt.journal.spending:  # by `poll`: it would be forgotten
                with attempt.course.lock:
                    attempt.recorder.record(attempt.recorder.make_step(key, action, None, started=since))
            looks = looks.planned(attempt.now() + self.every, None if self.timeout is None else since + self.timeout)
        prompt = {"job": key} | looks.as_prompt()
        return pause(
            attempt,
            Wait(kind=kind, key=address, prompt=prompt, asked_at=since, wake_at=looks.next_at),
            step=key,
        )

    def _was_told(self, attempt: Attempt) -> bool:
        """Take all events that have come: one look answers them."""
        was_told = False
        if self.event is not None:
            while attempt.mailbox.take(SignalKind.EVENT, self.event) is not None:
                was_told = True
        return was_told

    def _look(self, attempt: Attempt, key: str, looks: "_Looks") -> Result | None:
        """Call `poll`; return what came of the job, or None while it goes on. A failure may be one of those allowed."""
        looks.number += 1
        try:
            found = self._called(attempt, key, looks.number)
            if found is not None and not isinstance(found, Finished):
                raise TypeError(f"poll returns Finished(output), or None while the job goes on, not {found!r:.80}")
            result = None
            if found is not None:
                result = Result(success=True, output=self._as_json(key, found.output))
        except BaseException as error:
            if attempt.course.is_interrupt(error):
                raise  # not the poll's own: the process, or the whole attempt, is being ended
            if isinstance(error, Interrupted):
                attempt.course.enter_boundary()
            looks.failures += 1
            if (self.retry or NO_RETRY).allows(error, looks.failures):
                return None
            return Result(success=False, error=describe(error))
        looks.failures = 0
        return result

    def _as_json(self, key: str, given: Any) -> JSONValue:
        """Return what came of the job as JSON, which the type that is asked for can be read from."""
        if self.returns is not types.ANY and type(given) not in (dict, list, str, int, float, bool, NoneType):
            return types.round_trip(self.returns, key, given)[1]
        _, output = types.round_trip(types.ANY, key, given)
        try:
            types.from_record(self.returns, output, key)
        except pydantic.ValidationError as error:
            raise InvalidResult(key, types.problems(error)) from error
        return output

    def _called(self, attempt: Attempt, key: str, number: int) -> Any:
        """What the memory is changed to in a poll is undone: after a crash nobody would change it again."""
        stage, memory, poll = attempt.stage, attempt.memory, self.poll
        if stage is not None:
            poll = stage.stand_in(self.name, None) or poll
        work = PlainWork(lambda _: poll(self.submitted), is_async=types.is_async(poll), timeout=self.call_timeout)
        keeps_memory = attempt.nesting.is_concurrent
        if not keeps_memory:
            memory.begin_step()
        try:
            with attempt.course.busy(key), attempt.nesting.inside_step(key):
                return work.open(
                    attempt,
                    Try(key, number),
                    lambda opened: opened.call() if stage is None else stage.call(key, opened.call),
                )
        finally:
            if not keeps_memory:
                memory.roll_back()

    def _replayed(self, key: str, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        try:
            return types.from_record(self.returns, result.output, key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                key, f"what came of the job does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error


@dataclass(slots=True)
class _Looks:
    """The looks at a job, as the pause keeps them: how many, how many failed in a row, when the next one is due."""

    number: int = 0
    failures: int = 0
    next_at: datetime | None = None

    @classmethod
    def so_far(cls, waiting: Wait | None, key: str) -> "_Looks":
        """Return what the pause kept that the execution comes from; nothing if it comes from elsewhere."""
        if waiting is None or not isinstance(waiting.prompt, dict):
            return cls()
        kept = waiting.prompt
        if kept.get("job") != key:
            return cls()  # a plain wait for an event of the same name
        # Not `wake_at`, which is earlier where the execution's deadline comes first.
        return cls(kept["looks"], kept["failures"], datetime.fromisoformat(kept["next"]))

    def planned(self, at: datetime, at_latest: datetime | None) -> "_Looks":
        """Return the same looks with the next one at this time."""
        return _Looks(self.number, self.failures, at if at_latest is None else min(at, at_latest))

    def as_prompt(self) -> dict[str, JSONValue]:
        """Return what the pause keeps."""
        assert self.next_at is not None
        return {"looks": self.number, "failures": self.failures, "next": self.next_at.isoformat()}
