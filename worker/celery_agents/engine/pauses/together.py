"""`run.wait_all` and `run.wait_any`: several waits, open at the same time, each with a step and a key of its own.

Who waits for all records each end as it comes, and pauses on the rest. Who waits for any records which one came first
together with its end, in one write. That write closes the others: what is sent for them from then on is refused. What
was sent before is taken out of the mailbox, except for events, which stay for whoever waits for them next.
"""

from collections.abc import Sequence
from typing import Any, Final, NoReturn

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, AgentStep, Result, Wait, WaitKind
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.approval import AskedApproval
from celery_agents.engine.pauses.child import AwaitedChild
from celery_agents.engine.pauses.event import AwaitedEvent
from celery_agents.engine.pauses.open_wait import Ended, OpenWait
from celery_agents.engine.pauses.pause import pause_on
from celery_agents.engine.pauses.question import Question
from celery_agents.engine.pauses.signal import address
from celery_agents.engine.pauses.sleep import Sleep
from celery_agents.engine.steps.scope import Opened
from celery_agents.errors import JournalMismatch

AnyWait = Question | AskedApproval | AwaitedEvent | Sleep | AwaitedChild

ANY: Final = "any"
_WITHDRAWN: Final = "withdrawn"


def come_to_waits(attempt: Attempt, waits: Sequence[AnyWait]) -> list[str]:
    """The code has come to these waits: return the keys of their steps. Raise `TypeError` for anything else."""
    for wait in waits:
        if not isinstance(wait, AnyWait):
            raise TypeError(f"needs waits as celery_agents.waits makes them, one by one, and not {wait!r:.80}")
    return [attempt.journal.come_to(wait.name, is_derived=isinstance(wait, AwaitedChild)) for wait in waits]


def come_to_any(attempt: Attempt, name: str, waits: Sequence[AnyWait]) -> tuple[str, list[str]]:
    """Likewise; return also the key of the step that says which came first. Raise `ValueError` if there are none."""
    if not waits:
        raise ValueError("wait_any needs at least one wait: of none, none comes first")
    return attempt.journal.come_to(name), come_to_waits(attempt, waits)


def wait_all(attempt: Attempt, waits: Sequence[AnyWait], keys: Sequence[str], *, return_exceptions: bool) -> list[Any]:
    """Return the results of all waits in their order, once all have come; unwind the agent until then.

    Raise the first error in their order, or return errors in their places.
    """
    opened = [wait.open(attempt, key) for wait, key in zip(waits, keys, strict=True)]
    missing: list[Opened] = []
    results: list[Result] = []
    for one in opened:
        result = one.result
        if result is None:
            found = one.look(is_alone=len(opened) == 1)
            if isinstance(found, Wait):
                missing.append(Opened(one.key, found))
                continue
            # At once: what was taken out of the mailbox goes with the next write, which may be another one's.
            result = one.conclude(found)
        results.append(result)
    if missing:
        pause_on(attempt, missing)
    return [_value(one, result, return_exceptions) for one, result in zip(opened, results, strict=True)]


def _value(one: OpenWait, result: Result, return_exceptions: bool) -> Any:
    if result.error is not None and return_exceptions:
        return revive(result.error)
    return one.value(result)


def wait_any(attempt: Attempt, waits: Sequence[AnyWait], key: str, keys: Sequence[str]) -> tuple[AnyWait, Any]:
    """Return the wait that came first, and its result; unwind the agent until there is one.

    `key` is that of the step that says which it was. Raise what the wait that came first raises.
    """
    action = Action(kind=ANY, input=list(keys))
    recorded = attempt.journal.look_up(key, action)
    if recorded is not None and recorded.result is not None:
        return _replayed(attempt, waits, keys, key, recorded.result)
    opened = [wait.open(attempt, each) for wait, each in zip(waits, keys, strict=True)]
    number, result = _first(attempt, opened, key, action)
    return waits[number], opened[number].value(result)


def _replayed(
    attempt: Attempt, waits: Sequence[AnyWait], keys: Sequence[str], key: str, recorded: Result
) -> tuple[AnyWait, Any]:
    first = recorded.output["first"]
    if first not in keys:
        raise JournalMismatch(key, f"{first!r} is recorded to have come first, but the code does not wait for it")
    number = keys.index(first)
    return waits[number], waits[number].take(attempt, first)


def _first(attempt: Attempt, opened: Sequence[OpenWait], key: str, action: Action) -> tuple[int, Result]:
    """Find out which wait came first, and record it; return its place and its result."""
    kept = [
        (one.recorded.timestamp + one.recorded.duration, place)
        for place, one in enumerate(opened)
        if one.recorded is not None and one.result is not None and not _is_withdrawn(one.result)
    ]
    if kept:  # by a fork that ends before the record of which was first
        _, place = min(kept)
        return place, _record(attempt, opened, place, None, key, action)
    waiting: dict[int, Wait] = {}
    places = [place for place, one in enumerate(opened) if one.result is None]
    while True:
        moments = {
            place: moment for place in places if place not in waiting and (moment := opened[place].moment()) is not None
        }
        if not moments:
            _pause(attempt, opened, places, waiting)
        # At the same instant, what somebody has sent comes before what time brings.
        place = min(moments, key=lambda each: (moments[each], not _was_sent(attempt, opened[each]), each))
        found = opened[place].look(is_alone=False)
        if isinstance(found, Ended):
            return place, _record(attempt, opened, place, found, key, action)
        waiting[place] = found


def _pause(attempt: Attempt, opened: Sequence[OpenWait], places: Sequence[int], waiting: dict[int, Wait]) -> NoReturn:
    missing: list[Opened] = []
    for place in places:
        found = waiting.get(place) or opened[place].look(is_alone=False)
        assert isinstance(found, Wait), "nothing has come for it"
        missing.append(Opened(opened[place].key, found))
    pause_on(attempt, missing)


def _was_sent(attempt: Attempt, one: OpenWait) -> bool:
    of = address(one.kind, one.address, one.asked)
    return of is not None and attempt.mailbox.moment(*of) is not None


def _is_withdrawn(result: Result) -> bool:
    return isinstance(result.output, dict) and _WITHDRAWN in result.output


def _record(
    attempt: Attempt, opened: Sequence[OpenWait], place: int, ended: Ended | None, key: str, action: Action
) -> Result:
    """Record in one write how the first one ended, that it was the first, and that the others are withdrawn."""
    first, recorder = opened[place], attempt.recorder
    for one in opened:
        if one is first:
            continue
        one.forget()
        if one.kind not in (WaitKind.EVENT, WaitKind.CHILD):
            one.discard()
    with attempt.course.lock:

        def steps(ended: Ended | None) -> tuple[AgentStep, ...]:
            journal = attempt.journal
            now, last = attempt.now(), journal.last_number
            made: list[AgentStep] = []
            if ended is not None:
                last += not journal.has(first.key)
                made.append(first.step(ended, journal.step(first.key).step_number if journal.has(first.key) else last))
            said = Result(success=True, output={"first": first.key})
            made.append(recorder.make_step(key, action, said, started=now, number=last + 1))
            withdrawn = Result(success=True, output={_WITHDRAWN: first.key})
            made += [
                one.asked.on(recorder.make_step(one.key, one.action, withdrawn, started=one.since))
                for one in opened
                if one is not first and one.result is None and journal.has(one.key)  # something of no use came for it
            ]
            return tuple(sorted(made, key=lambda step: step.step_number))

        recorder.withdraw()
        try:
            recorder.record_all(steps(ended))
        except InvalidRecord as error:
            if ended is None:
                raise
            # What came is taken out of the mailbox: see `conclude`.
            ended = Ended(result=Result(success=False, error=describe(error)), since=ended.since, asked=ended.asked)
            recorder.record_all(steps(ended))
    result = first.result if ended is None else ended.result
    assert result is not None
    return result
