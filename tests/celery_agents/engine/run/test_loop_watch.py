"""Code that blocks the event loop is named in the log."""

import asyncio
import logging
import time

import pytest

from celery_agents import AsyncRun
from celery_agents.engine.run import loop_watch
from tests.celery_agents.driving import Engine
from tests.services.commands import wait_until


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Engine:
    """One whose event loop is asked more often than else."""
    monkeypatch.setattr(loop_watch, "blocked_after_seconds", 0.3)
    caplog.set_level(logging.INFO, logger=loop_watch.__name__)
    return Engine()


def load_the_page() -> str:
    time.sleep(3)  # longer than the watch rests at most, before it knows that it is to be quicker here
    return "page"


def test_a_blocking_call_is_told_with_its_place_and_its_end(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async def work(run: AsyncRun, input: None) -> str:
        return load_the_page()

    engine.execute(engine.start(engine.agent(work)))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "the event loop is blocked" in warning
    assert "in load_the_page" in warning
    assert "in work" in warning
    wait_until("its end is told", lambda: "the event loop goes on, after" in caplog.text)


def test_what_is_awaited_or_runs_in_a_thread_blocks_nothing(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async def work(run: AsyncRun, input: None) -> str:
        await asyncio.sleep(1)
        return await run.step("load", load_the_page)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert outcome.output == "page"
    assert caplog.records == []
