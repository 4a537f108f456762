"""What the tests of every framework's deaths have in common: a room names its agents, and inherits them."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from celery_agents.testing.llm import ModelServer
from tests.integrations.chaos import run_deaths
from tests.integrations.deaths_amid_texts import check_killed_amid_a_text, speaker
from tests.integrations.killing import Place, boss, check_killed, helper

Serve = Callable[..., ModelServer]


class Deaths:
    """Workers that run the agents of `module` are killed with SIGKILL: what was recorded is never paid for again."""

    framework: ClassVar[str]
    module: ClassVar[str]

    def test_recorded_requests_are_not_made_again(self, serve: Serve, tmp_path: Path) -> None:
        check_killed(Place(folder=tmp_path, module=self.module, server=serve(boss=boss, helper=helper)))

    @pytest.mark.full
    def test_nor_are_they_with_threads_and_several_deaths(self, serve: Serve, tmp_path: Path) -> None:
        server = serve(boss=boss, helper=helper)
        check_killed(Place(folder=tmp_path, module=self.module, server=server, pool="threads"), kills=3)

    @pytest.mark.full
    def test_they_would_be_without_the_recording(self, serve: Serve, tmp_path: Path) -> None:
        server = serve(boss=boss, helper=helper)
        place = Place(folder=tmp_path, module=self.module, server=server, pool="threads", without_recording=True)
        with pytest.raises(AssertionError):
            check_killed(place)
        assert server.repeated()

    @pytest.mark.full
    def test_who_follows_a_text_ends_with_what_is_recorded(self, serve: Serve, tmp_path: Path) -> None:
        check_killed_amid_a_text(self.module, tmp_path, serve(speaker=speaker), pool="threads")

    @pytest.mark.chaos
    @pytest.mark.timeout(1800)
    def test_fifty_deaths(
        self, tmp_path: Path, redis_url: str, postgresql_migrated_url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
        with capsys.disabled():
            print(f"\n{self.framework}, CHAOS_SEED={seed}", flush=True)
        figures = run_deaths(self.module, tmp_path, {"redis": redis_url, "postgresql": postgresql_migrated_url}, seed)
        with capsys.disabled():
            print(f"{self.framework}: {figures}")
