"""Flower and workers, on the embedded defaults and on Redis."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flower.watching import Watched


@pytest.fixture(params=["embedded", "redis"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    """An installation with a Flower and no worker yet."""
    settings: dict[str, str] = {}
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        settings = {"AGENTS_BROKER_URL": url, "AGENTS_STORE_URL": url, "AGENTS_RESULT_BACKEND": url}
    with contextlib.ExitStack() as stack:
        yield Watched(tmp_path, stack, settings)
