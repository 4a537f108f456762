"""Workers that run an agent of LangChain are killed with SIGKILL: what was recorded is never paid for again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from celery_agents.testing.llm import ModelServer
from tests.integrations.killing import Place, boss, check_killed, helper

Serve = Callable[..., ModelServer]
MODULE = "tests.integrations.langchain.killed"
pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("langchain-workers")]


def test_recorded_requests_are_not_made_again(serve: Serve, tmp_path: Path) -> None:
    place = Place(folder=tmp_path, module=MODULE, server=serve(boss=boss, helper=helper))
    check_killed(place)


@pytest.mark.full
def test_nor_are_they_with_threads_and_several_deaths(serve: Serve, tmp_path: Path) -> None:
    place = Place(folder=tmp_path, module=MODULE, server=serve(boss=boss, helper=helper), pool="threads")
    check_killed(place, kills=3)


@pytest.mark.full
def test_they_would_be_without_the_recording(serve: Serve, tmp_path: Path) -> None:
    server = serve(boss=boss, helper=helper)
    place = Place(folder=tmp_path, module=MODULE, server=server, pool="threads", without_recording=True)
    with pytest.raises(AssertionError):
        check_killed(place)
    assert server.repeated()
