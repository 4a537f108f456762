"""Each claim of the demo can fail: it is held against records that break it."""

import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_statestore import Action, AgentContext, AgentState, AgentStep, Result
from celery_agents.demo.proof import Ran, prove

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("list distributions", "audit a", "audit b", "audit c", "ask", "write_report")
RECORDED_AT_KILL = 2


def step(number: int, name: str, **fields: Any) -> AgentStep:
    output = "yes" if name == "ask" else name
    attempt = 1 if number <= RECORDED_AT_KILL else 2
    made = AgentStep(
        step_number=number,
        name=name,
        action=Action(kind="step"),
        result=Result(success=True, output=output),
        attempt=attempt,
        timestamp=NOW,
    )
    return replace(made, **fields)


def ran(report: Path, **fields: Any) -> Ran:
    context = AgentContext(
        execution_id=report.stem,
        agent_id="environment_audit",
        state=AgentState.COMPLETED,
        created_at=NOW,
        updated_at=NOW,
        output={"report_sha256": "abc"},
        steps=tuple(step(number, name) for number, name in enumerate(NAMES, 1)),
    )
    report.write_text("the report")
    return replace(Ran(context=context, calls=[name for name in NAMES if name != "ask"], report=report), **fields)


def failed(killed: Ran, undisturbed: Ran, exit_code: int = -signal.SIGKILL) -> list[str]:
    checks = prove(killed, undisturbed, recorded_at_kill=RECORDED_AT_KILL, exit_code=exit_code)
    return [check.claim for check in checks if not check.holds]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Ran, Ran]:
    return ran(tmp_path / "killed"), ran(tmp_path / "undisturbed")


def test_all_hold(pair: tuple[Ran, Ran]) -> None:
    assert failed(*pair) == []


def test_the_step_in_flight_may_be_called_twice(pair: tuple[Ran, Ran]) -> None:
    killed, undisturbed = pair
    assert failed(replace(killed, calls=[*killed.calls, "audit b"]), undisturbed) == []


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("audit a", "no recorded step ran again"),
        ("audit c", "one step lost at most"),
        ("audit never recorded", "one step lost at most"),
        ("write_report", "the side effect once"),
    ],
)
def test_an_extra_call_is_seen(pair: tuple[Ran, Ran], name: str, claim: str) -> None:
    killed, undisturbed = pair
    assert claim in failed(replace(killed, calls=[*killed.calls, name]), undisturbed)


def drop_a_step(steps: tuple[AgentStep, ...]) -> tuple[AgentStep, ...]:
    return steps[:3] + steps[4:]


def repeat_a_step(steps: tuple[AgentStep, ...]) -> tuple[AgentStep, ...]:
    return (*steps, replace(steps[1], step_number=len(steps) + 1, attempt=2))


def leave_an_intent(steps: tuple[AgentStep, ...]) -> tuple[AgentStep, ...]:
    return (*steps[:-1], replace(steps[-1], result=None))


@pytest.mark.parametrize("change", [drop_a_step, repeat_a_step, leave_an_intent])
def test_wrong_records_are_seen(
    pair: tuple[Ran, Ran], change: Callable[[tuple[AgentStep, ...]], tuple[AgentStep, ...]]
) -> None:
    killed, undisturbed = pair
    context = replace(killed.context, steps=change(killed.context.steps))
    assert "every step recorded once" in failed(replace(killed, context=context), undisturbed)


def test_a_worker_that_ended_otherwise_was_not_killed(pair: tuple[Ran, Ran]) -> None:
    assert failed(*pair, exit_code=0) == ["killed in the middle"]


def test_a_kill_that_came_after_the_question_was_not_in_the_middle(pair: tuple[Ran, Ran]) -> None:
    checks = prove(*pair, recorded_at_kill=5, exit_code=-signal.SIGKILL)
    assert "killed in the middle" in [check.claim for check in checks if not check.holds]


def test_no_other_attempt_means_that_nobody_took_over(pair: tuple[Ran, Ran]) -> None:
    killed, undisturbed = pair
    steps = tuple(replace(step, attempt=1) for step in killed.context.steps)
    assert failed(replace(killed, context=replace(killed.context, steps=steps)), undisturbed) == [
        "another worker went on"
    ]


def test_another_report_is_seen(pair: tuple[Ran, Ran]) -> None:
    killed, undisturbed = pair
    killed.report.write_text("another report")
    assert failed(killed, undisturbed) == ["report as if undisturbed"]


def test_a_report_that_is_not_there_is_seen(pair: tuple[Ran, Ran]) -> None:
    killed, undisturbed = pair
    killed.report.unlink()
    assert failed(killed, undisturbed) == ["the side effect once", "report as if undisturbed"]


def test_a_report_nobody_wanted_is_seen(pair: tuple[Ran, Ran]) -> None:
    killed, undisturbed = pair
    said_no = replace(killed.context.steps[4], result=Result(success=True, output="no"))
    context = replace(killed.context, steps=(*killed.context.steps[:4], said_no))
    assert "no side effect" in failed(replace(killed, context=context), undisturbed)
