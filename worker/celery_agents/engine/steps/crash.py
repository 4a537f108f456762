"""What becomes of a call during which the process died: its intent is recorded, and no result.

Only calls whose policy is not "retry" leave such an intent; see `celery_agents.define.crash_policy`.
"""

from dataclasses import replace
from typing import Any, Final, NoReturn

import pydantic

from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentStep, JSONValue, Result, Wait, WaitKind
from celery_agents.define import types
from celery_agents.define.answers import Expected
from celery_agents.define.crash_policy import CrashPolicy, Happened
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.rounds import Round
from celery_agents.engine.pauses.signal import began
from celery_agents.engine.pauses.wait import look_for
from celery_agents.engine.steps.calling import awaited
from celery_agents.engine.steps.step import Step
from celery_agents.engine.steps.work import Try
from celery_agents.errors import DeadLetter, InvalidResult, StepInterrupted

log = line_logger(__name__)

RETRY: Final = "retry"
FAIL: Final = "fail"


def settle(step: Step, attempt: Attempt, intent: AgentStep) -> Result | None:
    """The result of the interrupted call, as its policy has it; None if the call is to be made again.

    Unwinds the agent where a person is asked, and for good where a call takes down every process.
    """
    if step.crash_policy is CrashPolicy.FAIL:
        return Result(success=False, error=describe(StepInterrupted(intent.name)))
    if step.crash_policy is CrashPolicy.RECONCILE:
        try:
            happened = _reconciled(step, attempt, intent)
        except BaseException as error:  # whatever the user's function raises: then it is not known, a person is asked
            if attempt.course.is_interrupt(error) or not isinstance(error, Exception | SystemExit | KeyboardInterrupt):
                raise
            log.warning(
                "execution %s: whether step %r has happened could not be found out; a person is asked",
                attempt.context.execution_id,
                intent.name,
                exc_info=True,
            )
            return _asked(step, attempt, intent)
        if happened is None and intent.tries >= step.retry.retries + attempt.environment.max_attempts:
            _give_up(attempt, intent)
        return happened
    if step.crash_policy is CrashPolicy.ASK:
        return _asked(step, attempt, intent)
    return None


def _give_up(attempt: Attempt, intent: AgentStep) -> NoReturn:
    """Ends the execution. The call did not happen, so whoever releases the dead letter lets it be tried once more."""
    attempt.last_write.give_up(DeadLetter(intent.tries), replace(intent, in_flight=False))


def _reconciled(step: Step, attempt: Attempt, intent: AgentStep) -> Result | None:
    assert step.reconcile is not None
    reconcile, this = step.reconcile, Try(intent.name, intent.tries)

    def look() -> Any:
        return awaited(reconcile(this), key=intent.name, timeout=None, held=attempt.held)

    with attempt.nesting.inside_step(intent.name):
        found = look() if attempt.stage is None else attempt.stage.call(intent.name, look)
    if found is None:
        return None
    if not isinstance(found, Happened):
        raise InvalidResult(intent.name, [f"its reconcile function returned {found!r:.80}, not Happened(...) or None"])
    _, output = types.round_trip(step.returns, intent.name, found.output)
    return Result(success=True, output=output)


def _asked(step: Step, attempt: Attempt, intent: AgentStep) -> Result | None:
    # Each interrupted try is a question of its own: an answer counts once.
    key = f"{intent.name} interrupted {intent.tries}"
    action, asked = intent.action, Round.of(intent)
    while True:
        waited = look_for(
            attempt,
            WaitKind.INPUT,
            key,
            since=began(attempt, WaitKind.INPUT, key, key, asked),
            wake_at=None,
            prompt={
                "question": f"The process died during {action.title or action.tool or intent.name!r}, which may have "
                f'taken effect or not. Look whether it did. Answer "{RETRY}" to do it again, {{"output": ...}} with '
                f'its result if it did, or "{FAIL}" to let it fail.',
                "step": intent.name,
                "tool": action.tool,
                "input": action.input,
                "begun_at": intent.timestamp.isoformat(),
            },
            schema=_answer_schema(step),
            in_step=True,
            asked=asked,
        )
        if isinstance(waited, Wait):
            pause(attempt, waited, in_step=True)
        assert waited.signal is not None, "a question without a deadline"
        answer = waited.signal.payload
        if answer == RETRY:
            return None
        if answer == FAIL:
            return Result(success=False, error=describe(StepInterrupted(intent.name, waited.signal.reason or "")))
        if isinstance(answer, dict) and set(answer) == {"output"}:
            problems = Expected(adapter=step.returns).problems(answer["output"], key)
            if not problems:
                typed = types.from_json(step.returns, answer["output"], key)
                try:
                    return Result(success=True, output=types.round_trip(step.returns, key, typed)[1])
                except InvalidResult as error:
                    problems = error.problems
        else:
            problems = [f'{answer!r:.80} is not "{RETRY}", "{FAIL}" or {{"output": ...}}']
        asked = asked.refuse(attempt, intent.name, action, waited.signal, problems, waited.since, intent)


def _answer_schema(step: Step) -> dict[str, JSONValue]:
    try:
        output = {} if step.returns is types.ANY else step.returns.json_schema()
    except pydantic.PydanticUserError:
        output = {}  # a type of the user's that JSON Schema cannot say: the answer is held against it when it is there
    definitions = output.pop("$defs", {})
    return {
        "anyOf": [
            {"enum": [RETRY, FAIL]},
            {
                "type": "object",
                "properties": {"output": output},
                "required": ["output"],
                "additionalProperties": False,
            },
        ],
        **({"$defs": definitions} if definitions else {}),
    }
