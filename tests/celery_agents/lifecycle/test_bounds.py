"""No execution grows without end: its context, its mailbox, and the family that it starts."""

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, ContextTooLarge, InvalidRecord, MailboxFull
from celery_agents import Run, TooManyDescendants, agent, enqueue
from celery_agents.engine.executor import Defaults
from celery_agents.host.runtime import Runtime
from tests.celery_agents.driving import LEASE
from tests.celery_agents.household import Household, dying_at_each_write

LIMITS = Defaults(lease=LEASE, announce_within=LEASE)


def family(limit: int, **options: Any) -> tuple[Household, str]:
    """A parent that starts three children, each of which starts three."""
    home = Household(limits=replace(LIMITS, max_descendants=limit), **options)

    def leaf(run: Run, input: int) -> int:
        return input

    def branch(run: Run, input: int) -> list[Any]:
        return run.gather(*[run.spawn("leaf", number) for number in range(3)])

    def root(run: Run, input: None) -> list[Any]:
        return run.gather(*[run.spawn("branch", number) for number in range(3)])

    home.agent(leaf)
    home.agent(branch)
    return home, home.start(home.agent(root))


def test_a_family_has_no_more_descendants_than_there_may_be_over_all_generations() -> None:
    home, root_id = family(12)
    home.work(within=timedelta(minutes=5))
    assert home.context(root_id).output == [[0, 1, 2]] * 3

    home, root_id = family(11)
    home.work(within=timedelta(minutes=5))
    summary = home.summary(root_id)
    assert summary.state is AgentState.FAILED
    assert len(home.all(home.registry.agent("branch"))) + len(home.all(home.registry.agent("leaf"))) == 11
    refused = [one.error for one in home.all(home.registry.agent("branch")) if one.error is not None]
    assert [error.type for error in refused] == ["celery_agents.errors:TooManyDescendants"]
    assert refused[0].args == ("leaf", 11, root_id)


def test_a_refused_child_is_a_recorded_failure_that_code_may_catch() -> None:
    home = Household(limits=replace(LIMITS, max_descendants=1))

    def child(run: Run, input: int) -> int:
        return input

    def parent(run: Run, input: None) -> list[Any]:
        first = run.spawn("child", 1)
        with pytest.raises(TooManyDescendants):
            run.spawn("child", 2)
        return run.gather(first)

    home.agent(child)
    parent_id = home.start(home.agent(parent))
    home.work(within=timedelta(minutes=5))
    assert home.context(parent_id).output == [1]


def test_deaths_count_no_child_twice_but_for_the_moment_before_its_intent() -> None:
    def scenario(home: Household) -> str:
        def child(run: Run, input: int) -> int:
            return input

        def parent(run: Run, input: None) -> list[Any]:
            return run.gather(*[run.spawn("child", number) for number in range(2)])

        home.agent(child)
        parent_id = home.start(home.agent(parent))
        home.work(within=timedelta(minutes=30))
        return parent_id

    for home, parent_id in dying_at_each_write(scenario):
        assert home.context(parent_id).output == [0, 1]
        assert home.store._executions[parent_id].descendants in (2, 2 + home.deaths)


def test_a_context_without_room_ends_its_execution_and_calls_no_function_again() -> None:
    home, calls = Household(), []

    def hoards(run: Run, input: None) -> None:
        while True:
            with contextlib.suppress(InvalidRecord):
                run.step("look", lambda: calls.append(1) or "x" * 1000)  # type: ignore[func-returns-value]

    execution_id = home.start(home.agent(hoards))
    home.store.max_context_bytes = 10_000
    home.work(within=timedelta(minutes=5))
    summary, steps = home.summary(execution_id), home.context(execution_id).steps
    assert (summary.state, summary.attempt) == (AgentState.FAILED, 1)
    assert summary.error is not None
    assert summary.error.type == "agent_statestore.errors:ContextTooLarge"
    assert len(calls) == len(steps)
    assert 5 < len(steps) < 40


def test_a_result_for_which_there_is_no_room_is_that_steps_failure() -> None:
    home, calls = Household(), []

    def looks(run: Run, input: None) -> str:
        with pytest.raises(ContextTooLarge):
            run.step("much", lambda: calls.append(1) or "x" * 100_000)  # type: ignore[func-returns-value]
        return run.step("less", lambda: "x")  # type: ignore[no-any-return]

    execution_id = home.start(home.agent(looks))
    home.store.max_context_bytes = 10_000
    home.work(within=timedelta(minutes=5))
    assert home.context(execution_id).output == "x"
    assert calls == [1]


def test_the_settings_hold_at_the_clients_door(runtime: Runtime) -> None:
    @agent(registry=runtime.registry)
    def waits(run: Run, input: None) -> Any:
        return run.wait_for("never")

    assert (runtime.store.max_mailbox, runtime.store.max_context_bytes) == (1000, 256 * 1024 * 1024)
    runtime.store.max_mailbox = 3
    execution = enqueue(waits, runtime=runtime)
    for number in range(3):
        execution.send_event("paid", number)
    with pytest.raises(MailboxFull):
        execution.send_event("paid", 4)
    claim = runtime.store.claim(execution.id, "host/1/0", timedelta(minutes=1))
    assert claim is not None
    for _ in range(3):
        assert execution.cancel() is True  # whoever cancels again is told the same
    assert len(execution.context().signals) == 4
