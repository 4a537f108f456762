"""Workers that run an agent of the SDK are killed with SIGKILL: what was recorded is never paid for again."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from celery_agents.testing.llm import ModelServer
from tests.integrations.chaos import run_deaths
from tests.integrations.killing import Place, boss, check_killed, helper

Serve = Callable[..., ModelServer]
MODULE = "tests.integrations.openai_agents.killed"
pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("openai-agents-workers")]


def test_recorded_requests_are_not_made_again(serve: Serve, tmp_path: Path) -> None:
    place = Place(folder=tmp_path, module=MODULE, server=serve(boss=boss, helper=helper))
    check_killed(place)


@pytest.mark.full
def test_they_would_be_without_the_recording(serve: Serve, tmp_path: Path) -> None:
    server = serve(boss=boss, helper=helper)
    place = Place(folder=tmp_path, module=MODULE, server=server, pool="threads", without_recording=True)
    with pytest.raises(AssertionError):
        check_killed(place)
    assert server.repeated()


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_fifty_deaths(
    tmp_path: Path, redis_url: str, postgresql_migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
    figures = run_deaths(MODULE, tmp_path, {"redis": redis_url, "postgresql": postgresql_migrated_url}, seed)
    with capsys.disabled():
        print(f"\nOpenAI Agents SDK, seed {seed}: {figures}")
