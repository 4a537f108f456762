"""Processes die around a webhook: no receiver misses anything, and what comes twice has the same id."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_agents import enqueue
from tests.celery_agents.webhooks.receiving import SECRET, Receiver, receiving
from tests.crash.scene import Cell, Scene
from tests.crash.webhooks_dying import DEATHS, has_died, told

PREFORK = Cell("embedded", "sqlite", "prefork")
# The lease is also the time after which an end that nobody has told of is told again.
SETTINGS: Any = {"imports": ["tests.crash.webhooks_dying"], "lease_seconds": 2.0, "ring_seconds": 1.0}
IN_VAIN_SECONDS = 4.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(settings: dict[str, Any], receiver: Receiver) -> dict[str, Any]:
    hook = {"name": "hook", "url": receiver.url(), "secrets": SECRET, "timeout_seconds": 1}
    return settings | {"webhooks": json.dumps([hook])}


def ask_and_end(scene: Scene, receiver: Receiver, folder: Path) -> None:
    """One execution asks and ends, while processes die at each of the places."""
    execution = enqueue(told, None, runtime=scene.runtime)
    asked = scene.wait_until("a question is told", lambda: [*receiver.got])
    assert execution.summary().state.value == "waiting_for_input", "told of what is not asked"
    scene.wait_until("it is told again, as its sender died", lambda: len(receiver.got) >= 2)
    execution.resume("red", sender="ada")
    scene.wait_until("an end is told", lambda: "execution.ended" in receiver.types())
    scene.wait_until("all is noted as told", lambda: [one for one in DEATHS if has_died(folder, one)] == [*DEATHS])
    assert asked[0].data["question"]["key"] == "colour"
    assert execution.wait(0) == "red"
    assert len({one.id for one in receiver.got}) == 2, receiver.told()
    assert {one.type for one in receiver.got} == {"execution.asked", "execution.ended"}


@pytest.mark.worker(**SETTINGS)
@pytest.mark.parametrize("cell", [PREFORK], indirect=True, ids=str)
def test_no_webhook_is_lost_wherever_a_process_dies(scene: Scene, receiver: Receiver, folder: Path) -> None:
    ask_and_end(scene, receiver, folder)


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        pytest.param(
            PREFORK,
            "until a question is told",
            id="note_before_pause",
            marks=pytest.mark.worker(**SETTINGS, sabotage="no_note_before_pause"),
        ),
        pytest.param(
            PREFORK,
            "until an end is told",
            id="told_end",
            marks=[pytest.mark.full, pytest.mark.worker(**SETTINGS, sabotage="no_told_end")],
        ),
    ],
    indirect=["cell"],
)
def test_one_is_lost_without(scene: Scene, receiver: Receiver, folder: Path, match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        ask_and_end(scene.with_patience(IN_VAIN_SECONDS), receiver, folder)
