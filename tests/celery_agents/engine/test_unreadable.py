"""An execution whose record is damaged fails by name, and no function of its agent is called."""

from typing import Any

import pytest

from agent_statestore import AgentState, Checkpoint
from agent_statestore.errors import ExecutionUnreadable
from agent_statestore.testing.contract.damage import CONTENTS
from agent_statestore.testing.kit.builders import TTL, done, message
from celery_agents import Agent, Run, agent, enqueue
from celery_agents.engine.outcome import Ending
from celery_agents.host.runtime import Runtime
from tests.agent_statestore.damaging import damage_of


@pytest.fixture
def called() -> list[Any]:
    return []


@pytest.fixture
def counting(runtime: Runtime, called: list[Any]) -> Agent:
    def counts(run: Run, input: Any) -> Any:
        called.append(input)
        return run.step("one", lambda: called.append("step"))

    return agent(registry=runtime.registry)(counts)


def worked_on(runtime: Runtime, agent: Agent) -> str:
    """An execution of which another worker recorded three steps."""
    execution = enqueue(agent, 1, runtime=runtime)
    claim = runtime.store.claim(execution.id, "elsewhere/1/0", TTL)
    assert claim is not None
    steps = tuple(done(number) for number in (1, 2, 3))
    runtime.store.checkpoint(execution.id, Checkpoint(steps=steps, messages=(message("m"),)), claim.lease)
    runtime.store.release(claim.lease)
    return execution.id


def test_a_damaged_execution_fails_before_any_function_is_called(
    runtime: Runtime, counting: Agent, called: list[Any]
) -> None:
    for part in CONTENTS:
        execution_id = worked_on(runtime, counting)
        damage_of(runtime.store)(execution_id, part)
        outcome = runtime.executor.execute(execution_id, "host/1/0")
        assert outcome is not None
        assert (outcome.ending, type(outcome.error)) == (Ending.FAILED, ExecutionUnreadable), part
        summary = runtime.store.get_summary(execution_id)
        assert summary is not None
        assert summary.state is AgentState.FAILED, part
        assert summary.error is not None
        assert "damaged" in summary.error.message, part
        assert runtime.executor.execute(execution_id, "host/1/0") is None, part
    assert called == []


def test_a_damaged_execution_that_was_cancelled_is_told_of(runtime: Runtime, counting: Agent) -> None:
    execution_id = worked_on(runtime, counting)
    damage_of(runtime.store)(execution_id, "step")
    runtime.store.update_state(execution_id, AgentState.CANCELLED)
    runtime.ends.tell_of(execution_id)
