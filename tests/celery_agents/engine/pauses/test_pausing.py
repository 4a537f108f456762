"""Questions to people, retries, cancel, drain, dead letters: everything that ends a claim before the agent is done."""

from datetime import timedelta
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState, AlreadyAnswered, Checkpoint, Lease, QuestionNotAsked, SignalKind, WaitKind
from agent_statestore.records import Checkpointed
from celery_agents import Retry, Run
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.errors import AnswerTimeout, DeadLetter
from tests.celery_agents.driving import LEASE, Calls, Crash, Engine

# -- asking ------------------------------------------------------------------------------------------------------------


def asker(run: Run, input: None) -> Any:
    run.step("before", lambda: 1)
    run.say("assistant", "I have a question")
    answer = run.ask("Colour?", choices=["red", "blue"])
    run.say("user", answer)
    return [answer, run.step("after", lambda: 2)]


def test_a_question_pauses_and_gives_everything_back(engine: Engine) -> None:
    execution_id = engine.start(engine.agent(asker))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    context = engine.context(execution_id)
    assert context.state is AgentState.WAITING_FOR_INPUT
    assert context.waiting is not None
    assert (context.waiting.kind, context.waiting.key, context.waiting.prompt) == (WaitKind.INPUT, "ask", "Colour?")
    assert context.waiting.schema == {"enum": ["red", "blue"]}
    assert (context.owner, context.lease_expires_at, context.due_at) == (None, None, None)
    assert [message.content for message in context.memory.conversation_history] == ["I have a question"]


def test_a_paused_execution_cannot_be_claimed_by_a_stray_bell(engine: Engine) -> None:
    execution_id = engine.start(engine.agent(asker))
    engine.execute(execution_id)
    engine.clock.advance(timedelta(weeks=3))

    assert engine.execute(execution_id) is None
    assert engine.context(execution_id).state is AgentState.WAITING_FOR_INPUT


def test_an_answer_resumes_where_it_paused_and_repeats_no_message(engine: Engine) -> None:
    execution_id = engine.start(engine.agent(asker))
    engine.execute(execution_id)
    engine.answer(execution_id, "blue")
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["blue", 2]
    context = engine.context(execution_id)
    assert [step.name for step in context.steps] == ["before", "ask", "after"]
    assert [message.content for message in context.memory.conversation_history] == ["I have a question", "blue"]
    assert context.waiting is None
    assert context.signals == ()


def test_a_crash_after_the_answer_does_not_ask_again(engine: Engine) -> None:
    die = True

    def work(run: Run, input: None) -> str:
        answer = run.ask("Name?", schema=str)
        if die:
            raise Crash
        return answer

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.answer(execution_id, "Ada")
    engine.crash(execution_id)
    die = False
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "Ada"


def test_several_questions_have_keys_of_their_own(engine: Engine) -> None:
    def work(run: Run, input: None) -> list[Any]:
        return [run.ask("1?"), run.ask("2?"), run.ask("3?", name="third")]

    execution_id = engine.start(engine.agent(work))
    for key in ("ask", "ask#2", "third"):
        engine.execute(execution_id)
        waiting = engine.context(execution_id).waiting
        assert waiting is not None
        assert waiting.key == key
        with pytest.raises(QuestionNotAsked):
            engine.answer(execution_id, "x", "another")
        engine.answer(execution_id, key, key)
        with pytest.raises(AlreadyAnswered):
            engine.answer(execution_id, "again", key)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["ask", "ask#2", "third"]


class Choice(pydantic.BaseModel):
    name: str
    count: int = 1


def test_an_answer_is_typed(engine: Engine) -> None:
    seen: list[Any] = []

    def work(run: Run, input: None) -> None:
        seen.append(run.ask("?", schema=Choice))

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.answer(execution_id, {"name": "ü"})
    engine.execute(execution_id)

    assert seen == [Choice(name="ü", count=1)]


@pytest.mark.parametrize(
    ("options", "answer"), [({"schema": Choice}, {"count": "many"}), ({"choices": ["yes", "no"]}, "maybe")]
)
def test_an_answer_that_slipped_past_the_clients_check_is_asked_for_anew(
    engine: Engine, options: dict[str, Any], answer: Any
) -> None:
    def work(run: Run, input: None) -> None:
        run.ask("?", **options)

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.answer(execution_id, answer)
    engine.execute(execution_id)

    context = engine.context(execution_id)
    waiting = context.waiting
    assert waiting is not None
    assert (context.state, waiting.key, waiting.round) == (AgentState.WAITING_FOR_INPUT, "ask", 2)
    assert waiting.refused is not None
    assert context.signals == ()


def test_a_crash_between_the_refusal_and_the_pause_loses_neither_the_round_nor_the_reason(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(run: Run, input: None) -> Any:
        return run.ask("?", schema=int, timeout=timedelta(days=2))

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    first = engine.context(execution_id).waiting
    engine.answer(execution_id, "many")
    write = engine.store.checkpoint

    def dying(execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        if checkpoint.waits:
            raise Crash
        return write(execution_id, checkpoint, lease)

    engine.clock.advance(timedelta(hours=1))
    with monkeypatch.context() as patched:
        patched.setattr(engine.store, "checkpoint", dying)
        engine.crash(execution_id)
    engine.clock.advance(LEASE)
    engine.execute(execution_id)
    again = engine.context(execution_id).waiting
    assert first is not None
    assert again is not None
    assert (again.round, again.asked_at, again.wake_at) == (2, first.asked_at, first.wake_at)
    assert again.refused is not None
    engine.answer(execution_id, 7, round=2)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == 7


@pytest.mark.parametrize(("default", "expected"), [({"default": "no"}, "no"), ({}, AnswerTimeout)])
def test_after_the_deadline_comes_the_default_or_an_error(
    engine: Engine, default: dict[str, Any], expected: Any
) -> None:
    def work(run: Run, input: None) -> Any:
        return run.ask("?", timeout=timedelta(days=21), **default)

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.clock.advance(timedelta(days=20))
    assert engine.execute(execution_id) is None
    engine.clock.advance(timedelta(days=1, seconds=1))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    if expected is AnswerTimeout:
        assert isinstance(outcome.error, AnswerTimeout)
    else:
        assert outcome.output == expected


def test_an_answer_in_time_beats_the_deadline_even_if_it_is_read_late(engine: Engine) -> None:
    def work(run: Run, input: None) -> Any:
        return run.ask("?", timeout=timedelta(hours=1), default="nobody")

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.answer(execution_id, "somebody")
    engine.clock.advance(timedelta(days=1))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "somebody"


def test_a_crash_while_waiting_does_not_move_the_deadline(engine: Engine) -> None:
    attempts: list[int] = []

    def work(run: Run, input: None) -> Any:
        attempts.append(run.attempt)
        return run.ask("?", timeout=timedelta(hours=1), default="late")

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    first = engine.context(execution_id).waiting
    engine.clock.advance(timedelta(minutes=30))
    # A claim for another reason: a signal that is not the answer does not wake it, but a person may ring its bell.
    assert engine.execute(execution_id) is None
    second = engine.context(execution_id).waiting

    assert first == second


def test_agent_code_that_catches_everything_cannot_go_on_past_a_pause(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> str:
        try:
            run.ask("?")
        except BaseException:  # noqa: BLE001 - the fault that this test is about
            run.step("after", calls, 1)
        return "done"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    assert calls.made == []
    assert engine.context(execution_id).state is AgentState.WAITING_FOR_INPUT


# -- retries -----------------------------------------------------------------------------------------------------------


class Flaky:
    """Fails a number of times, then works."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "ok"


SOON = Retry(retries=3, first_delay=timedelta(milliseconds=1))


def test_a_step_is_tried_again_and_its_tries_are_recorded(engine: Engine) -> None:
    flaky = Flaky(2, OSError("down"))

    def work(run: Run, input: None) -> str:
        return run.options(retry=SOON).step("call", flaky)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "ok"
    (step,) = engine.context(execution_id).steps
    assert (flaky.calls, step.tries) == (3, 3)


def test_after_the_last_retry_the_failure_is_recorded(engine: Engine) -> None:
    flaky = Flaky(99, OSError("down"))

    def work(run: Run, input: None) -> str:
        return run.options(retry=SOON).step("call", flaky)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, OSError)
    assert flaky.calls == 4


def test_only_the_listed_errors_are_tried_again(engine: Engine) -> None:
    flaky = Flaky(1, ValueError("wrong"))

    def work(run: Run, input: None) -> str:
        return run.options(retry=Retry(retries=3, retry_on=(OSError,))).step("call", flaky)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, ValueError)
    assert flaky.calls == 1


def test_a_long_retry_delay_frees_the_worker_and_remembers_the_tries(engine: Engine) -> None:
    flaky = Flaky(2, OSError("down"))
    slow = Retry(retries=2, first_delay=timedelta(minutes=10), max_delay=timedelta(hours=1))

    def work(run: Run, input: None) -> str:
        return run.options(retry=slow).step("call", flaky)

    execution_id = engine.start(engine.agent(work))
    endings = []
    for _ in range(3):
        outcome = engine.execute(execution_id)
        assert outcome is not None
        endings.append(outcome.ending)
        if outcome.ending is Ending.PAUSED:
            assert engine.context(execution_id).state is AgentState.WAITING
            assert engine.execute(execution_id) is None
        engine.clock.advance(timedelta(hours=1))

    assert endings == [Ending.PAUSED, Ending.PAUSED, Ending.COMPLETED]
    (step,) = engine.context(execution_id).steps
    assert (step.tries, flaky.calls) == (3, 3)


def test_a_retry_of_the_last_permitted_step_is_no_further_step(engine: Engine) -> None:
    flaky = Flaky(1, OSError("down"))
    slow = Retry(retries=1, first_delay=timedelta(minutes=10))

    def work(run: Run, input: None) -> str:
        return run.options(retry=slow).step("call", flaky)

    execution_id = engine.start(engine.agent(work, max_steps=1))
    engine.execute(execution_id)
    engine.clock.advance(timedelta(hours=1))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "ok"


def test_what_a_failed_try_wrote_to_memory_is_undone(engine: Engine) -> None:
    attempts: list[int] = []

    def work(run: Run, input: None) -> Any:
        def call() -> str:
            attempts.append(1)
            run.memory[f"try {len(attempts)}"] = True
            run.say("assistant", f"try {len(attempts)}")
            if len(attempts) < 3:
                raise OSError
            return "ok"

        run.options(retry=SOON).step("call", call)
        return dict(run.memory)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"try 3": True}
    context = engine.context(execution_id)
    assert context.memory.working_memory == {"try 3": True}
    assert [message.content for message in context.memory.conversation_history] == ["try 3"]


# -- cancel, drain, crash loops ----------------------------------------------------------------------------------------


def test_a_cancel_is_seen_at_the_next_step_boundary(engine: Engine, calls: Calls) -> None:
    ids: list[str] = []

    def work(run: Run, input: None) -> None:
        run.step("one", calls, 1)
        run.step("two", lambda: engine.cancel(ids[0]))
        run.step("three", calls, 3)

    ids.append(engine.start(engine.agent(work)))
    outcome = engine.execute(ids[0])

    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED
    assert calls.made == [1]
    context = engine.context(ids[0])
    assert context.state is AgentState.CANCELLED
    assert [step.name for step in context.steps] == ["one", "two"]


def test_a_cancel_before_the_first_claim_runs_nothing(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> None:
        calls("ran")

    execution_id = engine.start(engine.agent(work))
    engine.cancel(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED
    assert calls.made == []


def test_a_cancel_ends_a_pause(engine: Engine) -> None:
    execution_id = engine.start(engine.agent(asker))
    engine.execute(execution_id)
    engine.cancel(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED
    assert engine.context(execution_id).waiting is None


def test_a_cancel_during_the_last_step_still_cancels(engine: Engine) -> None:
    ids: list[str] = []

    def work(run: Run, input: None) -> str:
        run.step("last", lambda: engine.cancel(ids[0]))
        return "done"

    ids.append(engine.start(engine.agent(work)))
    outcome = engine.execute(ids[0])

    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED


def test_a_drain_stops_at_the_step_boundary_and_gives_the_lease_back(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> str:
        run.step("one", calls, 1)
        run.step("two", lambda: setattr(engine, "draining", run.attempt == 1))
        run.step("three", calls, 3)
        return "done"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert (outcome.ending, outcome.ring) == (Ending.DRAINED, True)
    drained = engine.context(execution_id)
    assert (drained.owner, drained.lease_expires_at, drained.crashes) == (None, None, 0)
    assert drained.due_at == drained.updated_at
    engine.draining = False
    again = engine.execute(execution_id)

    assert again is not None
    assert again.output == "done"
    assert calls.made == [1, 3]


def test_a_crash_loop_ends_as_a_dead_letter_that_can_be_released(engine: Engine) -> None:
    engine.limits = Defaults(lease=LEASE, max_attempts=3)
    die = True

    def work(run: Run, input: None) -> str:
        run.step("fine", lambda: 1)
        if die:
            run.step("deadly", lambda: (_ for _ in ()).throw(Crash()))
        return "done"

    execution_id = engine.start(engine.agent(work))
    for _ in range(4):  # the first attempt recorded a step, so it does not count
        engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert isinstance(outcome.error, DeadLetter)
    assert "3 attempts" in str(outcome.error)
    assert engine.context(execution_id).state is AgentState.FAILED
    die = False
    engine.store.requeue(execution_id)
    released = engine.execute(execution_id)

    assert released is not None
    assert released.output == "done"
    assert [step.name for step in engine.context(execution_id).steps] == ["fine"]


def test_progress_between_crashes_is_no_crash_loop(engine: Engine) -> None:
    engine.limits = Defaults(lease=LEASE, max_attempts=1)

    def work(run: Run, input: None) -> str:
        for number in range(5):
            run.step("step", int, number)
            if run.attempt == number + 1:
                raise Crash
        return "done"

    execution_id = engine.start(engine.agent(work))
    for _ in range(5):
        engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "done"


def test_an_exit_that_was_asked_for_gives_the_lease_back_but_counts_as_a_crash(engine: Engine) -> None:
    def work(run: Run, input: None) -> None:
        run.step("exit", lambda: (_ for _ in ()).throw(SystemExit(1)))

    engine.exiting = True
    execution_id = engine.start(engine.agent(work))
    with pytest.raises(SystemExit):
        engine.execute(execution_id)

    context = engine.context(execution_id)
    assert (context.owner, context.crashes) == (None, 1)
    assert context.due_at == context.updated_at


def test_a_worker_that_does_not_know_the_agent_leaves_it_to_others(engine: Engine) -> None:
    execution_id = engine.store.create_context("elsewhere").execution_id
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.UNKNOWN
    context = engine.context(execution_id)
    assert (context.state.is_over, context.owner, context.crashes) == (False, None, 0)


def test_a_signal_of_another_kind_does_not_answer(engine: Engine) -> None:
    execution_id = engine.start(engine.agent(asker))
    engine.execute(execution_id)
    engine.send(execution_id, SignalKind.EVENT, "ask", "red")

    assert engine.execute(execution_id) is None
