"""`run.said`: what people say to an execution while it runs is taken into the journal at a place of the code.

A look that finds nothing records nothing. That it found nothing is known on a replay nevertheless: if it had found
something, that would be recorded before all that the code did next. So while something recorded lies ahead of the code
(a step, or a wait that the execution was paused on) a look finds what is recorded at its place, and nothing else. What
has come meanwhile waits for a place behind all that: it cannot lead the code past an open question.
"""

from collections.abc import Collection
from typing import Any, Final

from agent_statestore.envelope import dump
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, Result, SayMode, Signal, SignalKind
from celery_agents.define.saying import Saying
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.journal import has_ahead

SAID: Final = "said"

EVERY_MODE: Final = frozenset(SayMode)
# What does not wait for the end of a turn.
WITHIN_TURN: Final = EVERY_MODE - {SayMode.NEXT_TURN}


def said(attempt: Attempt, key: str, modes: Collection[SayMode] = EVERY_MODE) -> tuple[Saying, ...]:
    """Return what was said in these modes and not taken yet, oldest first; `key` is that of the look."""
    action = Action(kind=SAID)
    recorded = attempt.journal.look_up(key, action) if attempt.journal.has(key) else None
    if recorded is None:
        attempt.course.check_goes_on()
        if has_ahead(attempt.journal) or not attempt.recorder.paused_on.is_left:
            return ()
        attempt.mailbox.take_in(attempt.ask_store(attempt.mailbox.read))
        signals = _fitting(attempt, attempt.mailbox.waiting(SignalKind.SAY, modes))
        if not signals:
            return ()
        recorded = _record(attempt, key, action, signals)
    assert recorded.result is not None, "it has no intent"
    kept: list[Any] = recorded.result.output
    return tuple(map(Saying.from_json, kept))


def _record(attempt: Attempt, key: str, action: Action, signals: list[Signal]) -> Any:
    """Record what is taken, in the write that takes it out of the stored mailbox."""
    recorder, mailbox = attempt.recorder, attempt.mailbox
    result = Result(success=True, output=[Saying.of(signal).as_json() for signal in signals])
    with attempt.course.lock:
        mailbox.take_all(signals)
        try:
            step = recorder.make_step(key, action, result, started=attempt.now())
            recorder.record(step)
        except InvalidRecord:
            mailbox.put_back(signals)
            raise
    attempt.held.cuttable.heed(signal.signal_id for signal in signals)
    return step


def _fitting(attempt: Attempt, signals: list[Signal]) -> list[Signal]:
    """Return as many as one step has room for: the first, and those behind it."""
    room = attempt.max_value_bytes
    fitting: list[Signal] = []
    for signal in signals:
        room -= len(dump(Saying.of(signal).as_json(), SAID).encode()) + 1
        if fitting and room < _STEP_ROOM_BYTES:
            break
        fitting.append(signal)
    return fitting


# The bytes that the record of a step holds besides its values.
_STEP_ROOM_BYTES: Final = 512
