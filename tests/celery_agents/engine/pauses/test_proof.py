"""A decision counts if the audit trail has it: whoever writes past `Store.send` decides nothing unnoticed."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_statestore import open_store
from celery_agents import Run, tool
from tests.celery_agents.approving import asked, decide
from tests.celery_agents.driving import Engine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agents.db"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    engine = Engine()
    engine.store = open_store(f"sqlite:///{file}", clock=engine.clock)
    yield engine
    engine.store.close()


def change(file: Path, statement: str, *values: Any) -> None:
    """Write past the store, as somebody may who has its password."""
    with sqlite3.connect(file) as connection:
        assert connection.execute(statement, values).rowcount == 1


def asking(run: Run, input: None) -> Any:
    return run.ask("Pay?", choices=["no", "yes"])


def counting(run: Run, input: None) -> Any:
    return [run.step(f"step {number}", lambda: 1) for number in range(3)]


def forget(file: Path) -> None:
    change(file, "DELETE FROM agent_audit WHERE event = 'decided'")


def replaced(old: str, new: str) -> Callable[[Path], None]:
    return lambda file: change(file, "UPDATE agent_signals SET data = replace(data, ?, ?)", old, new)


def refused(engine: Engine, execution_id: str) -> None:
    """Whoever looks at the question sees that, and why, the decision did not count."""
    engine.execute(execution_id)
    context = engine.context(execution_id)
    assert context.waiting is not None
    assert (context.state.is_paused, context.waiting.round, context.signals) == (True, 2, ())
    assert "the audit trail does not have this decision" in str(context.waiting.refused)


@pytest.mark.parametrize("forge", [forget, replaced('"no"', '"yes"')], ids=["entry", "answer"])
def test_an_answer(engine: Engine, file: Path, forge: Callable[[Path], None]) -> None:
    execution_id = engine.start(engine.agent(asking))
    engine.execute(execution_id)
    engine.answer(execution_id, "no")
    forge(file)
    refused(engine, execution_id)
    engine.answer(execution_id, "no", round=2)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "no"


@pytest.mark.parametrize("forge", [forget, replaced('"approved":false', '"approved":true')], ids=["entry", "answer"])
def test_an_approval(engine: Engine, file: Path, forge: Callable[[Path], None]) -> None:
    paid: list[int] = []

    @tool(registry=engine.registry, requires_approval=True)
    def pay(amount: int) -> None:
        paid.append(amount)

    def paying(run: Run, input: None) -> None:
        run.tool(pay, amount=1)

    execution_id = engine.start(engine.agent(paying))
    decide(engine, execution_id, asked(engine, execution_id), approved=False)
    forge(file)
    refused(engine, execution_id)
    assert paid == []


@pytest.mark.parametrize("forge", [forget, replaced('"payload":0', '"payload":9')], ids=["entry", "answer"])
def test_a_limit_that_is_raised(engine: Engine, file: Path, forge: Callable[[Path], None]) -> None:
    execution_id = engine.start(engine.agent(counting, max_steps=1, on_limit="ask"))
    engine.execute(execution_id)
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    engine.answer(execution_id, 0, waiting.key)
    forge(file)
    refused(engine, execution_id)
