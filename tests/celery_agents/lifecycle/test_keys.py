"""Keys that the engine makes and keys that users give: neither ever stands for an execution of the other."""

from datetime import timedelta
from itertools import count, product
from typing import Any

import pytest

from agent_statestore import AgentState
from agent_statestore.checkpoint import NewExecution
from agent_statestore.errors import InvalidRecord
from celery_agents import Run
from celery_agents.define import deadline, turns
from celery_agents.lifecycle import keys
from celery_agents.replay.forks import AT_STEP, FORKED_FROM
from celery_agents.testing import LocalAgents
from tests.celery_agents.household import Household


def test_no_key_of_a_users_takes_the_place_of_a_child() -> None:
    home = Household()

    def child(run: Run, input: int) -> str:
        return f"of {run.execution_id}"

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn("child", 1))

    home.agent(child)
    parent_id = home.start(home.agent(parent))
    forged = home.start(home.registry.agent("child"), 1, idempotency_key=f"{parent_id}/spawn child")
    home.work()
    (made,) = (one for one in home.all(home.registry.agent("child")) if one.execution_id != forged)
    assert home.context(parent_id).output == [f"of {made.execution_id}"]

    taken = made.idempotency_key
    assert taken is not None
    with (
        LocalAgents(registry=home.registry) as agents,
        pytest.raises(InvalidRecord, match="as only keys of the eng"),
    ):
        agents.start("child", 1, idempotency_key=taken)


def test_no_metadata_of_a_users_tell_what_only_the_engine_knows() -> None:
    home = Household()

    def child(run: Run, input: int) -> int:
        return input

    home.agent(child)
    with LocalAgents(registry=home.registry) as agents:
        for name in (FORKED_FROM, AT_STEP, deadline.KEY, turns.KEY, "agents.anything"):
            with pytest.raises(InvalidRecord, match=f"'{name}' is not to be given there"):
                agents.start("child", 1, metadata={name: "x"})


def test_keys_of_the_engine_are_all_different_and_can_be_stored() -> None:
    names = ("a", "a @ b", "b @ a", "b", "@", "1:a", "x" * 255, "x" * 254 + "y")
    made = [make(first, second) for make in (keys.of_child, keys.of_tick) for first, second in product(names, names)]
    parent_id = "0197f3c5-0000-7000-8000-000000000000"
    parents = [keys.of_child(parent_id, "s" * 200 + f"#{10**number}") for number in range(9)]
    assert len(set(made)) == len(made)
    assert len(set(parents)) == len(parents)
    for key in (*parents, *(keys.of_tick("e" * 200, f"{number}" * 90) for number in range(3))):
        NewExecution(agent_id="a", idempotency_key=key)  # it checks the length


def test_a_child_of_another_input_than_the_step_asks_for_is_never_taken_for_it() -> None:
    numbers = count(1)
    home = Household(dies_at=3, dies_after=True)  # the claim, the intent, the child

    def child(run: Run, input: int) -> int:
        return run.step("double", lambda: 2 * input)  # type: ignore[no-any-return]

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn("child", next(numbers)))

    home.agent(child)
    parent_id = home.start(home.agent(parent))
    home.work(within=timedelta(minutes=5))

    summary = home.summary(parent_id)
    assert (summary.state, home.deaths) == (AgentState.FAILED, 1), home.store.writes
    assert summary.error is not None
    assert summary.error.type.endswith(":JournalMismatch")
    (made,) = home.all(home.registry.agent("child"))
    assert made.execution_id in summary.error.message
    assert home.context(made.execution_id).input == 1


def test_a_child_that_was_found_by_its_key_must_have_this_parent_to_be_cancelled_with_it() -> None:
    home = Household()

    def child(run: Run, input: int) -> Any:
        return run.ask("?")

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn("child", 1))

    home.agent(child)
    parent_id = home.start(home.agent(parent))
    strangers = home.start(
        home.registry.agent("child"), 1, idempotency_key=keys.of_child(parent_id, "spawn child"), start_at=home.now()
    )
    home.store.dies_at, home.store.dies_after = 2, True  # the claim, the intent
    home.bell(parent_id)
    home.cancel(parent_id)
    home.work(within=timedelta(minutes=5))
    assert home.summary(parent_id).state is AgentState.CANCELLED
    assert home.summary(strangers).state is not AgentState.CANCELLED
