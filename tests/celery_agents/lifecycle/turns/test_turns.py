"""Whose turn it is: order within a session, and how many executions of an agent work at once."""

import contextlib
import threading
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, Checkpoint, FormatTooNew, InvalidRecord, SignalKind, Wait, WaitKind
from agent_statestore.query import Query
from celery_agents import Registry, Run, SessionBusy, agent, enqueue
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.errors import RegistrationError
from celery_agents.host.runtime import Runtime
from tests.celery_agents.driving import LEASE, Calls, Crash
from tests.celery_agents.lifecycle.turns.lining import Line

HOUR = timedelta(hours=1)


@pytest.fixture
def line() -> Line:
    return Line()


def ends(outcome: Outcome | None) -> Ending:
    assert outcome is not None
    return outcome.ending


def turn_of(line: Line, execution_id: str) -> Any:
    """What the execution waits for at the gate; None if it does not."""
    waiting = line.context(execution_id).waiting
    return None if waiting is None or waiting.key not in ("agents.turn", "agents.rate") else waiting.prompt["turn"]


def asking(run: Run, input: Any) -> Any:
    return run.ask("?")


def simple(run: Run, input: Any) -> Any:
    return run.step("do", lambda: input)


# -- what an agent may demand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"session_policy": "serial"},
        {"concurrency": 0},
        {"concurrency": True},
        {"concurrency": "3"},
        {"concurrency_key": str},
        {"concurrency": 1, "concurrency_key": "user"},
        {"rate_limit": "10"},
        {"rate_limit": "0/m"},
        {"rate_limit": "10/d"},
        {"rate_limit": 10},
    ],
)
def test_what_cannot_be_demanded_is_refused_at_registration(options: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match=r"simple: (session_policy|concurrency|concurrency_key|rate_limit) "):
        agent(registry=Registry(), **options)(simple)


def test_the_key_of_the_input_is_kept_with_the_execution(runtime: Runtime) -> None:
    keyed = agent(registry=runtime.registry, concurrency=1, concurrency_key=lambda order: order["user"])(simple)
    execution = enqueue(keyed, {"user": 7}, metadata={"a": 1}, runtime=runtime)
    assert execution.summary().metadata == {"a": 1, "agents.key": "7"}
    with pytest.raises(InvalidRecord, match="concurrency_key makes it"):
        enqueue(keyed, {"user": 7}, metadata={"agents.key": "8"}, runtime=runtime)
    with pytest.raises(KeyError):
        enqueue(keyed, {}, runtime=runtime)
    with pytest.raises(InvalidRecord, match="a text, a number or None"):
        enqueue(keyed, {"user": []}, runtime=runtime)
    assert len(runtime.store.find().items) == 1


# -- concurrency -------------------------------------------------------------------------------------------------------


def test_an_execution_for_which_there_is_no_place_waits_until_another_one_ends(line: Line) -> None:
    waited: list[Outcome | None] = []

    def works(run: Run, input: str | None) -> None:
        if input is not None:
            waited.append(line.execute(input))

    limited = line.agent(works, concurrency=1)
    second = line.begin(limited)
    first = line.begin(limited, second)
    assert ends(line.execute(first)) is Ending.COMPLETED
    assert ends(waited[0]) is Ending.PAUSED
    assert line.answer_bells() == [second]
    assert line.context(second).state is AgentState.COMPLETED


def test_a_paused_execution_does_not_count(line: Line) -> None:
    limited = line.agent(asking, concurrency=1)
    executions = [line.begin(limited) for _ in range(3)]
    assert [ends(line.execute(execution_id)) for execution_id in executions] == [Ending.PAUSED] * 3
    assert {line.context(execution_id).state for execution_id in executions} == {AgentState.WAITING_FOR_INPUT}


def test_a_crashed_holder_counts_until_its_lease_runs_out(line: Line) -> None:
    def crashes(run: Run, input: bool) -> None:
        if input:
            raise Crash

    limited = line.agent(crashes, concurrency=1)
    holder, other = line.begin(limited, True), line.begin(limited, False)
    assert line.store.claim(holder, "host/2/0", LEASE) is not None
    assert ends(line.execute(other)) is Ending.PAUSED
    assert turn_of(line, other) == "concurrency"
    line.clock.advance(LEASE)
    line.send(other, SignalKind.EVENT, "agents.turn", None)
    assert ends(line.execute(other)) is Ending.COMPLETED


def test_a_key_is_counted_by_itself(line: Line) -> None:
    inner: list[Ending] = []

    def works(run: Run, input: list[str]) -> None:
        inner.extend(ends(line.execute(execution_id)) for execution_id in input[1:])

    limited = line.agent(works, concurrency=1, concurrency_key=lambda value: value[0])
    same, other = line.begin(limited, ["a"]), line.begin(limited, ["b"])
    line.execute(line.begin(limited, ["a", same, other]))
    assert inner == [Ending.PAUSED, Ending.COMPLETED]
    assert line.answer_bells() == [same]


def test_an_end_wakes_the_oldest_and_no_other(line: Line) -> None:
    limited = line.agent(simple, concurrency=1)
    holder = line.begin(limited)
    claim = line.store.claim(holder, "host/2/0", LEASE)
    assert claim is not None
    waiting = [line.begin(limited) for _ in range(5)]
    for execution_id in reversed(waiting):
        assert ends(line.execute(execution_id)) is Ending.PAUSED
    assert line.rung == []
    line.store.release(claim.lease)
    line.execute(holder)
    assert line.rung == [waiting[0]]
    line.execute(line.rung.pop())
    assert line.rung == [waiting[1]]


def test_each_of_several_free_places_wakes_one(line: Line) -> None:
    limited = line.agent(simple, concurrency=2)
    claims = [line.store.claim(line.begin(limited), "host/2/0", LEASE) for _ in range(2)]
    waiting = [line.begin(limited) for _ in range(4)]
    for execution_id in waiting:
        line.execute(execution_id)
    for claim in claims:
        assert claim is not None
        line.store.release(claim.lease)
        line.execute(claim.lease.execution_id)
    # The first end saw one free place, the second two: nobody is woken twice.
    assert sorted(line.rung) == sorted(waiting[:2])


def test_those_that_see_each_other_and_step_back_do_not_wait_for_ever(line: Line) -> None:
    limited = line.agent(simple, concurrency=1)
    first, second = line.begin(limited), line.begin(limited)
    claim = line.store.claim(second, "host/2/0", LEASE)
    assert claim is not None
    assert ends(line.execute(first)) is Ending.PAUSED
    line.store.release(claim.lease)
    # `second` sees nobody, so it works, and wakes `first` when it ends.
    assert ends(line.execute(second)) is Ending.COMPLETED
    assert line.answer_bells() == [first]


def test_a_wake_that_comes_on_the_way_to_the_pause_is_not_lost(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = line.agent(simple, concurrency=1)
    holder, late = line.begin(limited), line.begin(limited)
    claim = line.store.claim(holder, "host/2/0", LEASE)
    assert claim is not None
    checkpoint = line.store.checkpoint

    def ends_meanwhile(execution_id: str, change: Any, lease: Any = None) -> Any:
        if execution_id == late:
            monkeypatch.undo()
            line.store.update_state(holder, AgentState.COMPLETED, lease=claim.lease)
            line.ends.tell(line.context(holder))
            assert line.rung == []
        return checkpoint(execution_id, change, lease)

    monkeypatch.setattr(line.store, "checkpoint", ends_meanwhile)
    # Nobody was there to be woken when the holder ended; who paused afterwards has looked once more.
    assert ends(line.execute(late)) is Ending.PAUSED
    assert line.answer_bells() == [late]
    assert line.context(late).state is AgentState.COMPLETED


def test_who_is_never_woken_looks_by_himself_and_ever_more_rarely(line: Line) -> None:
    limited = line.agent(simple, concurrency=1)
    holder, waiting = line.begin(limited), line.begin(limited)
    line.store.claim(holder, "host/2/0", timedelta(days=2))
    waits = []
    for _ in range(9):
        assert ends(line.execute(waiting)) is Ending.PAUSED
        wait = line.context(waiting).waiting
        assert wait is not None
        assert wait.wake_at is not None
        summary = line.store.get_summary(waiting)
        assert summary is not None
        waits.append((wait.wake_at - summary.updated_at) / timedelta(minutes=1))
        line.clock.advance(wait.wake_at - summary.updated_at)
    full = [1, 2, 4, 8, 15, 15, 15, 15, 15]
    assert all(most / 2 - 0.01 <= wait <= most + 0.01 for wait, most in zip(waits, full, strict=True)), waits


# -- what a wait at the gate leaves as it was --------------------------------------------------------------------------


def test_a_wait_at_the_gate_is_invisible_to_the_journal(line: Line, calls: Calls) -> None:
    def works(run: Run, input: None) -> list[Any]:
        calls("begun")
        run.sleep(HOUR)
        return [run.step("one", calls, 1), run.attempt]

    limited = line.agent(works, concurrency=1)
    execution_id, holder = line.begin(limited), line.begin(limited)
    assert ends(line.execute(execution_id)) is Ending.PAUSED
    line.clock.advance(HOUR + LEASE)
    claim = line.store.claim(holder, "host/2/0", LEASE)
    assert claim is not None
    assert ends(line.execute(execution_id)) is Ending.PAUSED
    assert turn_of(line, execution_id) == "concurrency"
    assert calls.made == ["begun"]
    line.store.release(claim.lease)
    line.send(execution_id, SignalKind.EVENT, "agents.turn", None)
    # The hour has passed: it is not slept once more.
    assert ends(line.execute(execution_id)) is Ending.COMPLETED
    assert calls.made == ["begun", "begun", 1]
    context = line.context(execution_id)
    assert [step.name for step in context.steps] == ["sleep", "one"]
    assert context.waiting is None
    assert context.signals == ()


def test_an_answer_that_came_before_the_wait_at_the_gate_counts_after_it(line: Line) -> None:
    limited = line.agent(asking, concurrency=1)
    execution_id, holder = line.begin(limited), line.begin(limited)
    line.execute(execution_id)
    line.answer(execution_id, "yes")
    line.store.claim(holder, "host/2/0", LEASE)
    assert ends(line.execute(execution_id)) is Ending.PAUSED
    line.clock.advance(LEASE)
    line.send(execution_id, SignalKind.EVENT, "agents.turn", None)
    outcome = line.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "yes"


def test_crashes_are_counted_across_waits_at_the_gate(line: Line) -> None:
    def crashes(run: Run, input: None) -> None:
        raise Crash

    limited = line.agent(crashes, concurrency=1, max_attempts=3)
    execution_id, holder = line.begin(limited), line.begin(limited)
    for _ in range(2):
        line.crash(execution_id)
        line.store.claim(holder, "host/2/0", LEASE)
        assert ends(line.execute(execution_id)) is Ending.PAUSED
        line.clock.advance(LEASE)
        line.send(execution_id, SignalKind.EVENT, "agents.turn", None)
    line.crash(execution_id)
    outcome = line.execute(execution_id)
    assert ends(outcome) is Ending.FAILED
    error = line.context(execution_id).error
    assert error is not None
    assert "DeadLetter" in error.type


def test_waiting_at_the_gate_is_no_crash(line: Line) -> None:
    limited = line.agent(simple, concurrency=1, max_attempts=1)
    execution_id, holder = line.begin(limited), line.begin(limited)
    for _ in range(5):
        line.store.claim(holder, "host/2/0", LEASE)
        assert ends(line.execute(execution_id)) is Ending.PAUSED
        line.clock.advance(LEASE)
        line.send(execution_id, SignalKind.EVENT, "agents.turn", None)
    assert ends(line.execute(execution_id)) is Ending.COMPLETED


@pytest.mark.parametrize("name", ["agents.turn", "agents.rate"])
def test_a_question_that_bears_the_name_of_a_wait_at_the_gate_is_a_question(line: Line, name: str) -> None:
    def asks(run: Run, input: None) -> Any:
        return run.ask({"question": "go?"}, name=name)

    execution_id = line.begin(line.agent(asks, concurrency=1))
    assert ends(line.execute(execution_id)) is Ending.PAUSED
    line.send(execution_id, SignalKind.ANSWER, name, "yes")
    outcome = line.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "yes"


def test_a_line_that_cannot_be_read_is_no_failure(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = line.agent(simple, concurrency=1)
    execution_id = line.begin(limited)

    def is_newer(query: Query) -> Any:
        raise FormatTooNew("execution of tomorrow", 99, 1)

    monkeypatch.setattr(line.store, "find", is_newer)
    assert ends(line.execute(execution_id)) is Ending.UNKNOWN
    monkeypatch.undo()
    assert line.context(execution_id).crashes == 0
    assert ends(line.execute(execution_id)) is Ending.COMPLETED


def test_a_cancel_and_a_deadline_reach_those_who_wait(line: Line) -> None:
    limited = line.agent(simple, concurrency=1, deadline=timedelta(seconds=20))
    holder, cancelled, late = (line.begin(limited) for _ in range(3))
    line.store.claim(holder, "host/2/0", HOUR)
    for execution_id in (cancelled, late):
        assert ends(line.execute(execution_id)) is Ending.PAUSED
    line.cancel(cancelled)
    assert ends(line.execute(cancelled)) is Ending.CANCELLED
    line.clock.advance(timedelta(seconds=20))
    assert ends(line.execute(late)) is Ending.FAILED
    error = line.context(late).error
    assert error is not None
    assert "DeadlineExceeded" in error.type


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_in_a_session_one_works_after_the_other_in_the_order_of_creation(line: Line, calls: Calls) -> None:
    def notes(run: Run, input: int) -> Any:
        return run.step("do", calls, input)

    queued = line.agent(notes, session_policy="queue")
    executions = [line.begin(queued, number, session_id="s") for number in range(4)]
    for execution_id in reversed(executions[1:]):
        assert ends(line.execute(execution_id)) is Ending.PAUSED
        assert turn_of(line, execution_id) == "session"
    assert line.rung == []
    line.execute(executions[0])
    assert line.answer_bells() == executions[1:]
    assert calls.made == [0, 1, 2, 3]


def test_all_that_an_execution_was_paused_on_is_kept_while_it_waits_for_its_turn(line: Line) -> None:
    def works(run: Run, input: str | None) -> None:
        if input is not None:
            line.execute(input)

    limited = line.agent(works, concurrency=1)
    second = line.begin(limited)
    at = line.context(second).created_at
    waits = (
        Wait(kind=WaitKind.TIMER, key="sleep", asked_at=at, wake_at=at),
        Wait(kind=WaitKind.EVENT, key="paid", prompt={"order": 7}, asked_at=at),
    )
    line.store.checkpoint(second, Checkpoint(state=AgentState.WAITING, waits=waits))
    gate = line.executor.turns
    line.execute(line.begin(limited, second))
    stepped_back = line.context(second)
    assert turn_of(line, second) == "concurrency"
    assert gate.unwrapped(stepped_back).waits == waits


def test_an_older_one_that_is_paused_keeps_its_turn(line: Line) -> None:
    queued = line.agent(asking, session_policy="queue")
    older, younger = (line.begin(queued, session_id="s") for _ in range(2))
    assert ends(line.execute(older)) is Ending.PAUSED
    assert ends(line.execute(younger)) is Ending.PAUSED
    assert line.rung == []
    assert line.context(younger).state is AgentState.WAITING
    line.answer(older, 1)
    assert ends(line.execute(older)) is Ending.COMPLETED
    assert line.answer_bells() == [younger]
    assert line.context(younger).state is AgentState.WAITING_FOR_INPUT


def test_other_sessions_other_agents_and_none_at_all_do_not_wait(line: Line) -> None:
    queued, other = line.agent(asking, session_policy="queue"), line.agent(asking, name="other")
    line.execute(line.begin(queued, session_id="s"))
    for free in (
        line.begin(queued, session_id="t"),
        line.begin(queued),
        line.begin(queued),
        line.begin(other, session_id="s"),
        line.begin(other, session_id="s"),
    ):
        line.execute(free)
        assert line.context(free).state is AgentState.WAITING_FOR_INPUT


def test_the_end_of_one_that_nobody_works_on_passes_the_turn_on(line: Line) -> None:
    queued = line.agent(asking, session_policy="queue")
    older, younger = (line.begin(queued, session_id="s") for _ in range(2))
    line.execute(older)
    line.execute(younger)
    line.store.update_state(older, AgentState.CANCELLED)
    summary = line.store.get_summary(older)
    assert summary is not None
    line.ends.tell(summary)
    line.ends.tell(summary)
    assert line.rung == [younger]


def test_a_child_in_its_parents_session_does_not_wait_for_its_parent(line: Line) -> None:
    def recursive(run: Run, input: int) -> int:
        return 1 if input == 0 else run.gather(run.spawn("recursive", input - 1))[0] + 1

    queued = line.agent(recursive, session_policy="queue")
    execution_id, after = line.begin(queued, 3, session_id="s"), line.begin(queued, 0, session_id="s")
    line.execute(execution_id)
    line.execute(after)
    assert line.context(after).state is AgentState.WAITING
    for _ in range(30):
        if not line.answer_bells():
            break
        tell_all_ends(line)
    context = line.context(execution_id)
    assert (context.state, context.output) == (AgentState.COMPLETED, 4)
    assert line.context(after).state is AgentState.COMPLETED


def tell_all_ends(line: Line) -> None:
    for summary in line.store.find(Query(states=[AgentState.COMPLETED])).items:
        line.ends.tell(summary)


def test_a_session_is_rejected_while_it_is_busy(runtime: Runtime) -> None:
    one = agent(registry=runtime.registry, session_policy="reject")(simple)
    first = enqueue(one, session_id="s", idempotency_key="k", runtime=runtime)
    with pytest.raises(SessionBusy, match=rf"session 's' of agent 'simple' is busy with execution {first.id}") as busy:
        enqueue(one, session_id="s", runtime=runtime)
    assert busy.value.execution_id == first.id
    assert enqueue(one, session_id="s", idempotency_key="k", runtime=runtime) == first
    enqueue(one, session_id="t", runtime=runtime)
    enqueue(one, runtime=runtime)
    enqueue(one, runtime=runtime)
    assert len(runtime.store.find().items) == 4
    runtime.store.update_state(first.id, AgentState.COMPLETED)
    assert enqueue(one, session_id="s", runtime=runtime) != first


def test_of_many_that_start_one_session_at_once_at_most_one_succeeds(runtime: Runtime) -> None:
    one = agent(registry=runtime.registry, session_policy="reject")(simple)
    for number in range(5):
        started: list[str] = []

        def start(session: str, started: list[str]) -> None:
            with contextlib.suppress(SessionBusy):
                started.append(enqueue(one, session_id=session, runtime=runtime).id)

        threads = [threading.Thread(target=start, args=(f"s{number}", started)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stored = runtime.store.find(Query(session_id=f"s{number}")).items
        assert len(started) <= 1
        assert [summary.execution_id for summary in stored] == started


def test_a_wait_at_the_gate_says_what_for(line: Line) -> None:
    limited = line.agent(simple, concurrency=1)
    line.store.claim(line.begin(limited), "host/2/0", LEASE)
    execution_id = line.begin(limited)
    line.execute(execution_id)
    waiting = line.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.kind, waiting.key, waiting.prompt["turn"]) == (WaitKind.EVENT, "agents.turn", "concurrency")
