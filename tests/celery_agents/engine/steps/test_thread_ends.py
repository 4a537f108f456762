"""What belongs to a thread is closed when a step in it has ended; the thread of the task is not ours to tidy."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

from agent_statestore import AgentState
from celery_agents import AsyncRun, Run, StepTimeout, at_thread_end
from celery_agents.engine import thread_ends
from celery_agents.engine.steps import calling
from tests.celery_agents.driving import Engine
from tests.services.commands import wait_until

AMPLE = timedelta(seconds=60)


@pytest.fixture
def at_ends() -> Iterator[Callable[[Callable[[], object]], None]]:
    """`at_thread_end`, for the length of a test."""
    before = dict(thread_ends._functions)
    yield at_thread_end
    thread_ends._functions.clear()
    thread_ends._functions.update(before)


class Shop:
    """An application with a `scoped_session`, as SQLAlchemy's manual has it."""

    def __init__(self, folder: Path) -> None:
        self.engine = create_engine(f"sqlite:///{folder}/shop.db", poolclass=QueuePool, pool_size=50)
        self.session = scoped_session(sessionmaker(self.engine))

    def look(self, number: int = 1) -> int:
        return int(self.session.execute(text(f"SELECT {number}")).scalar_one())

    @property
    def is_all_given_back(self) -> bool:
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout() == 0


@pytest.fixture
def shop(tmp_path: Path, at_ends: Callable[[Callable[[], object]], None]) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    at_ends(shop.session.remove)
    yield shop
    shop.session.remove()
    shop.engine.dispose()


def test_no_thread_of_a_step_keeps_a_session(engine: Engine, shop: Shop) -> None:
    def beside(run: Run, input: None) -> Any:
        return run.parallel([partial(shop.look, number) for number in range(6)])

    def timed(run: Run, input: None) -> Any:
        return run.options(timeout=AMPLE).step("look", shop.look)

    def timed_beside(run: Run, input: None) -> Any:
        return run.options(timeout=AMPLE).parallel([shop.look, shop.look])

    async def gathered(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(*(run.step("look", shop.look) for _ in range(6)))

    async def to_thread(run: AsyncRun, input: None) -> Any:
        async def look() -> list[int]:
            return await asyncio.gather(*(asyncio.to_thread(shop.look) for _ in range(3)))

        return await run.step("look", look)

    for agent in (beside, timed, timed_beside, gathered, to_thread):
        outcome = engine.execute(engine.start(engine.agent(agent)))
        assert outcome is not None
        assert outcome.state is AgentState.COMPLETED, outcome
        shop.session.remove()  # that of the task's own thread, as the host does it
        wait_until(f"{agent.__name__} has closed its sessions", lambda: shop.is_all_given_back)


def test_the_thread_of_the_task_is_left_alone(engine: Engine, shop: Shop) -> None:
    def plain(run: Run, input: None) -> Any:
        return run.step("look", shop.look)

    engine.execute(engine.start(engine.agent(plain)))
    assert not shop.is_all_given_back


def test_a_call_that_was_left_behind_is_tidied_up_when_it_ends(
    engine: Engine, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "STOP_SECONDS", 0.2)
    release = threading.Lock()
    release.acquire()

    def stuck() -> int:
        shop.look()
        release.acquire()  # in the kernel
        return 1

    def agent(run: Run, input: None) -> bool:
        try:
            run.options(timeout=timedelta(seconds=0.1)).step("stuck", stuck)
        except StepTimeout as error:
            return error.still_running
        return False

    outcome = engine.execute(engine.start(engine.agent(agent)))
    assert outcome is not None
    assert outcome.output is True
    assert not shop.is_all_given_back
    release.release()
    wait_until("it has ended", lambda: shop.is_all_given_back)


def test_what_fails_is_logged_and_changes_nothing(
    engine: Engine,
    shop: Shop,
    at_ends: Callable[[Callable[[], object]], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise OSError("the socket is gone")

    called: list[str] = []
    at_ends(fail)
    at_ends(lambda: called.append(threading.current_thread().name))

    def agent(run: Run, input: None) -> Any:
        return run.parallel({"a": shop.look, "b": shop.look})

    with caplog.at_level(logging.ERROR, logger=thread_ends.__name__):
        outcome = engine.execute(engine.start(engine.agent(agent)))
    assert outcome is not None
    assert outcome.output == {"a": 1, "b": 1}
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [str(fail)] * 2
    assert len(called) == 2
    assert threading.current_thread().name not in called
