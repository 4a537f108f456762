"""The faults of other systems of this field, one test each: here, or where the part in question is tested anyway.

What the ancestor of this design got wrong:

- the loop never sees tool results when the store is not the one in memory: here
- an answer on the last permitted step counts as failure:
  celery_agents/engine/steps/test_steps.py::test_an_output_on_the_last_permitted_step_counts
- approvals work with the store in memory only: here
- two approvers run the effect twice:
  celery_agents/lifecycle/test_deciding.py::test_of_many_decisions_at_once_one_wins
- a lease is read, then written:
  ../statestore/agent_statestore/testing/contract/races.py::test_of_several_claimants_exactly_one_wins
- a lease's token is never checked:
  ../statestore/agent_statestore/testing/contract/fencing.py::test_a_write_under_a_lost_lease_is_refused_and_changes_nothing
- concurrent appends overwrite each other:
  ../statestore/agent_statestore/testing/contract/races.py::test_concurrent_writers_lose_nothing_and_leave_no_gap
- errors are stored as `{}`:
  celery_agents/engine/steps/test_steps.py::test_a_recorded_failure_is_raised_again_as_the_same_error
- resuming a finished execution calls the model again: here
- shutting one worker down deletes everybody's executions: here
- bytes grow with the square of the steps: here
- a time to live kills executions that wait for people:
  agent_statestore/redis/test_redis.py::test_default_ttl_slides_with_writes_and_spares_the_queued_and_the_paused
- the index of a session never expires:
  agent_statestore/redis/test_redis.py::test_expired_executions_leave_nothing_after_tidy
- `clear` uses KEYS: here
- deleted rows stay readable and writable:
  ../statestore/agent_statestore/testing/contract/purging.py::test_a_deleted_execution_is_hidden_from_every_read_and_write
- the archive option does nothing:
  celery_agents/host/test_archive.py::test_an_execution_is_archived_once_its_end_is_announced
- the hybrid loop makes new contexts without steps:
  agent_statestore/hybrid/test_hybrid.py::test_archiving_twice_changes_nothing
- a paused execution is marked completed:
  celery_agents/engine/pauses/test_pausing.py::test_a_question_pauses_and_gives_everything_back
- step numbers start again after a resume: here
- a retry makes a new execution: here
- a timeout leaves the tool running beside its retry:
  celery_agents/engine/steps/test_timeouts.py::test_a_plain_call_that_cannot_be_ended_is_not_tried_beside_itself
- events are declared and never sent: here
- health never looks at the store:
  celery_agents/cli/test_cli_setup.py::test_check

What users of others complain about:

- side effects twice after a redelivery: here
- side effects twice after two resumes at once: here
- an effect in flight twice after a wrong recovery:
  crash/test_effects.py::test_the_outside_has_as_many_effects_as_the_policy_promises
- a living executor is recovered:
  crash/test_lease.py::test_a_step_longer_than_the_lease_is_not_taken_over
- five messages at once, one stored:
  ../statestore/agent_statestore/testing/contract/races.py::test_concurrent_writers_lose_nothing_and_leave_no_gap
- the whole execution again from step 0:
  celery_agents/engine/steps/test_steps.py::test_a_crash_repeats_no_recorded_step
- slow to recover, or never:
  crash/test_kill.py::test_another_worker_goes_on_at_once_after_the_whole_worker_was_killed
- stuck behind a message that nobody redelivers:
  crash/test_broker_lost.py::test_executions_complete_after_the_broker_was_flushed
- code before an interrupt runs again:
  celery_agents/engine/pauses/test_pausing.py::test_an_answer_resumes_where_it_paused_and_repeats_no_message
- approved arguments are not the executed ones:
  celery_agents/lifecycle/test_deciding.py::test_an_approval_of_another_call_than_the_one_that_was_shown_is_refused
- conversations bricked by a call without its result:
  celery_agents/loop/test_loop_crashes.py::test_a_cancel_at_a_write_leaves_no_call_without_result
- a cancel that does not cancel:
  celery_agents/lifecycle/test_cancelling.py::test_a_worker_ends_what_is_cancelled_within_seconds_and_is_free_again
- a cancel that leaves the children running:
  celery_agents/lifecycle/test_families.py::test_a_cancel_reaches_all_generations_even_if_a_worker_dies_at_any_write
- async code under Celery: "event loop is closed":
  celery_agents/engine/run/test_async_agents.py::test_the_loop_is_one_and_its_clients_outlive_an_execution
- deploys strand executions:
  celery_agents/engine/steps/test_steps.py::test_steps_may_be_added_between_deploys
- schema changes strand executions:
  ../statestore/agent_statestore/testing/contract/formats.py::test_an_older_format_is_migrated_when_it_is_read
- monitoring forgets on a restart:
  ../statestore/agent_statestore/testing/contract/shared.py::test_it_outlives_the_instance_that_wrote_it
- permissive deserialisation: here
- oversize payloads are retried for ever: here
- limits on the size of a history: here
- a paused execution counts against concurrency:
  celery_agents/lifecycle/turns/test_turns.py::test_a_paused_execution_does_not_count
"""

import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from agent_statestore import AgentState, MemoryStore, SignalKind, Store
from agent_statestore.checkpoint import Checkpoint
from agent_statestore.codec import encode_checkpoint
from agent_statestore.errors import AlreadyAnswered, ExecutionOver
from agent_statestore.opening import open_store
from agent_statestore.records import ErrorInfo
from agent_statestore.redis import RedisStore
from celery_agents import Complete, ExecutionFailed, Retry, Run, UseTool, tool
from celery_agents.engine.events import EventKind
from celery_agents.engine.executor import Defaults
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.approval import digest_of
from celery_agents.errors import StepFailed
from tests.celery_agents.driving import Calls, Engine
from tests.celery_agents.household import Household
from tests.celery_agents.loop.looping import Model, start

TESTS = Path(__file__).parents[1]


def test_every_test_that_is_named_above_is_there() -> None:
    named = re.findall(r"^  (\S+\.py)::(\w+)$", __doc__ or "", re.MULTILINE)
    assert len(named) > 25
    for path, name in named:
        assert f"def {name}(" in (TESTS / path).read_text(), f"{path}::{name}"


@pytest.fixture(params=["sqlite", "redis"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path, redis_prefix: str) -> Iterator[Callable[[], Store]]:
    """Opens the same store, as a worker does; closed after the test."""
    url = f"sqlite:///{tmp_path}/agents.db"
    if request.param == "redis":
        url = f"{request.getfixturevalue('redis_url')}?key_prefix={redis_prefix}"
    opened: list[Store] = []

    def opens() -> Store:
        opened.append(open_store(url))
        return opened[-1]

    yield opens
    for store in opened:
        store.close()


# -- the ancestor ------------------------------------------------------------------------------------------------------


def test_the_loop_sees_tool_results_whatever_the_store(engine: Engine, open_again: Callable[[], Store]) -> None:
    engine.store = open_again()

    @tool(registry=engine.registry)
    def search(words: str) -> list[str]:
        """Searches."""
        return [f"about {words}"]

    model = Model(
        UseTool(tool="search", arguments={"words": "ducks"}),
        lambda: Complete(output=[told for told in model.seen[-1].messages if told["role"] == "tool"]),
    )
    outcome = engine.execute(start(engine, model, "Ducks?", tools=[search]))

    assert outcome is not None
    assert "about ducks" in str(outcome.output)
    assert len(model.seen) == 2


def test_an_approval_is_asked_for_and_given_through_any_store(
    engine: Engine, calls: Calls, open_again: Callable[[], Store]
) -> None:
    @tool(registry=engine.registry, requires_approval=True)
    def pay(amount: int) -> int:
        """Pays."""
        paid: int = calls(amount)
        return paid

    def work(run: Run, input: None) -> int:
        return run.tool(pay, 30)

    engine.store = open_again()
    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).state is AgentState.WAITING_FOR_APPROVAL
    assert calls.made == []
    engine.store = open_again()  # another process
    digest = digest_of(execution_id, "approve pay", "pay", {"amount": 30})
    engine.send(execution_id, SignalKind.APPROVAL, "approve pay", {"approved": True, "digest": digest})
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert (outcome.output, calls.made) == (30, [30])


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_bell_for_a_finished_execution_calls_nothing(engine: Engine, calls: Calls, end: str) -> None:
    def work(run: Run, input: None) -> str:
        calls("model")
        if end == "failed":
            raise ValueError
        if end == "cancelled":
            run.ask("?")
        return "done"

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    if end == "cancelled":
        engine.cancel(execution_id)
        engine.execute(execution_id)
    assert engine.context(execution_id).state.value == end
    before, called = engine.context(execution_id), list(calls.made)
    for _ in range(3):
        assert engine.execute(execution_id) is None

    assert calls.made == called
    assert engine.context(execution_id) == before


def test_a_worker_that_ends_takes_no_execution_with_it(open_again: Callable[[], Store]) -> None:
    ending, other = open_again(), open_again()
    ids = [ending.create_context("agent", number).execution_id for number in range(3)]
    ending.checkpoint(ids[0], Checkpoint(state=AgentState.COMPLETED, output="done"))
    ending.close()

    assert [other.get_context(one).state for one in ids] == [  # type: ignore[union-attr]
        AgentState.COMPLETED,
        AgentState.IDLE,
        AgentState.IDLE,
    ]
    other.check()


def test_what_a_step_writes_does_not_grow_with_the_steps_before_it(engine: Engine) -> None:
    sizes: list[int] = []

    class Weighing(MemoryStore):
        def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Any = None) -> Any:
            sizes.append(len(repr(encode_checkpoint(checkpoint, self.max_value_bytes))))
            return super().checkpoint(execution_id, checkpoint, lease)

    def work(run: Run, input: None) -> None:
        for _ in range(600):
            run.say("assistant", "x" * 100)
            run.memory["place"] = "y" * 100
            run.step("step", lambda: "z" * 1000)

    engine.store = Weighing(clock=engine.clock)
    engine.execute(engine.start(engine.agent(work)))

    # A few digits more: of the number, and of the suffix of the name.
    assert len(sizes) == 601
    assert max(sizes[1:600]) - sizes[0] < 50


def test_clearing_scans_no_server(redis_url: str, redis_prefix: str) -> None:
    with redis.Redis.from_url(redis_url) as client, RedisStore(redis_url, key_prefix=redis_prefix) as store:
        for number in range(50):
            store.create_context("agent", number)
        client.config_resetstat()
        assert store.clear() == 50
        used = {name.removeprefix("cmdstat_").lower() for name in client.info("commandstats")}

    assert "keys" not in used
    assert used


def test_step_numbers_go_on_after_every_resume() -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        for number in range(4):
            run.step("think", lambda n=number: n)  # type: ignore[misc]
            run.ask("?")

    execution_id = home.start(home.agent(work))
    for key in ("ask", "ask#2", "ask#3", "ask#4"):
        home.work()
        home.answer(execution_id, "go on", key)
    home.work()

    assert [step.step_number for step in home.context(execution_id).steps] == list(range(1, 9))
    assert home.context(execution_id).state is AgentState.COMPLETED


def test_a_retry_and_a_release_go_on_with_the_same_execution(calls: Calls) -> None:
    home, broken = Household(), True

    def fails_first() -> str:
        calls(1)
        if len(calls.made) < 3:
            raise OSError("down")
        return "ok"

    def work(run: Run, input: None) -> str:
        done = run.options(retry=Retry(retries=5, first_delay=timedelta(hours=1))).step("call", fails_first)
        if broken:
            raise RuntimeError("of the code, not of the world")
        return done

    agent = home.agent(work)
    execution_id = home.start(agent)
    home.work(within=timedelta(hours=9))
    assert home.context(execution_id).state is AgentState.FAILED
    broken = False
    home.store.requeue(execution_id)
    home.work()

    assert [one.execution_id for one in home.all(agent)] == [execution_id]
    assert home.context(execution_id).output == "ok"
    assert len(calls.made) == 3


def test_every_event_that_is_declared_is_sent(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def look() -> str:
        """Looks."""
        return "seen"

    def work(run: Run, input: None) -> Any:
        run.step("think", lambda: 1)
        run.tool(look)
        return run.ask("?")

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.events[-1].waiting is not None
    engine.answer(execution_id, "yes")
    engine.execute(execution_id)

    assert {event.kind for event in engine.events} == set(EventKind)
    states = [event.state for event in engine.events if event.kind in (EventKind.STATE, EventKind.ENDED)]
    assert states == [
        AgentState.THINKING,
        AgentState.USING_TOOL,
        AgentState.WAITING_FOR_INPUT,
        AgentState.COMPLETED,
    ]


# -- double effects ----------------------------------------------------------------------------------------------------


def test_ten_bells_at_once_are_one_execution(engine: Engine, calls: Calls) -> None:
    together = threading.Barrier(10)

    def work(run: Run, input: None) -> list[Any]:
        return [run.step("pay", calls, number) for number in range(20)]

    execution_id = engine.start(engine.agent(work))
    outcomes: list[Any] = []

    def bell() -> None:
        together.wait()
        outcomes.append(engine.execute(execution_id))

    _at_once([bell] * 10)

    assert calls.made == list(range(20))
    assert sum(outcome is not None for outcome in outcomes) == 1


def test_two_answers_and_two_resumes_at_once_are_one_effect_and_nobodys_state_is_lost(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        answer = run.ask("?")
        run.say("user", answer)
        return run.step("effect", calls, answer)

    execution_id = home.start(home.agent(work))
    home.work()
    refused: list[str] = []

    def resume(answer: str) -> Callable[[], None]:
        def resumes() -> None:
            try:
                home.answer(execution_id, answer)
            except (AlreadyAnswered, ExecutionOver):
                refused.append(answer)
            home.execute(execution_id)

        return resumes

    _at_once([resume("yes"), resume("no")])
    home.work()

    (effect,) = calls.made
    assert [effect, *refused] in (["yes", "no"], ["no", "yes"])
    (message,) = home.context(execution_id).memory.conversation_history
    assert message.content == home.context(execution_id).output == effect


def _at_once(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- limits and untrusted data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["os:system", "subprocess:Popen", "builtins:eval", "builtins:object", "json:loads", "no.such.module:Error"]
)
def test_stored_data_makes_nothing_but_exceptions(kind: str, monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    for name in ("os.system", "subprocess.Popen", "builtins.eval", "json.loads"):
        monkeypatch.setattr(name, calls)
    error = revive(ErrorInfo(type=kind, message="ran", args=("touch /tmp/ran",), bases=(kind, "builtins:OSError")))
    monkeypatch.undo()

    assert isinstance(error, StepFailed)
    assert isinstance(error, OSError)
    assert calls.made == []


def test_a_payload_that_is_too_large_is_tried_once(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        impatient = run.options(retry=Retry(retries=9, first_delay=timedelta(milliseconds=1)))
        impatient.step("huge", lambda: "x" * (calls(home.store.max_value_bytes) + 1))

    execution_id = home.start(home.agent(work))
    home.work(within=timedelta(hours=1))

    error = home.context(execution_id).error
    assert error is not None
    assert "ValueTooLarge" in error.type
    assert home.summary(execution_id).attempt == len(calls.made) == 1


def test_a_history_of_thousands_of_steps_goes_on_after_a_pause(calls: Calls) -> None:
    home, number = Household(), 3_000
    home.limits = Defaults(max_steps=10_000)

    def work(run: Run, input: None) -> int:
        for place in range(number):
            run.step("think", calls, place)
        run.ask("go on?")
        return run.step("end", lambda: len(calls.made))

    execution_id = home.start(home.agent(work))
    home.work()
    home.answer(execution_id, "yes")
    home.work()

    assert home.context(execution_id).output == number
    assert len(home.context(execution_id).steps) == number + 2


def test_a_history_of_more_than_fifty_megabytes_goes_on_after_a_pause(calls: Calls) -> None:
    home, megabyte = Household(), "x" * 2**20

    def call_model() -> str:
        calls(1)
        return megabyte

    def work(run: Run, input: None) -> int:
        total = sum(len(run.step("model", call_model)) for _ in range(53))
        run.sleep(timedelta(days=1))
        return total

    execution_id = home.start(home.agent(work))
    home.work(within=timedelta(days=2))

    assert home.context(execution_id).output == 53 * 2**20
    assert len(calls.made) == 53


def test_a_failure_can_be_told_by_its_class_and_its_message() -> None:
    """Not as `{}`, to those who wait for the execution either."""
    error = ExecutionFailed("id", "builtins:ValueError", "Straße 7")
    assert str(error) == "execution id failed with builtins:ValueError: Straße 7"
