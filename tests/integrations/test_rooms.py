"""Each framework is imported in its own room only, and every block of its page runs alone, as a reader pastes it."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import FRAMEWORK_PAGES
from tests.integrations.rooms import ROOMS, Room, import_and_run_all

# One process imports the frameworks, for all of these tests.
pytestmark = pytest.mark.xdist_group("rooms")


@pytest.fixture(scope="module")
def came() -> list[dict[str, Any]]:
    return import_and_run_all()


def test_a_framework_is_imported_in_its_own_room_only(came: list[dict[str, Any]]) -> None:
    packages = [room.package for room in ROOMS]
    expected = [sorted(packages[:number]) for number in range(len(ROOMS) + 1)]
    assert [one["loaded"] for one in came] == expected


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_block_runs_alone(came: list[dict[str, Any]], room: Room) -> None:
    texts, results = room.blocks, came[1 + ROOMS.index(room)]["blocks"]
    failed = [f"{text}\n{result}" for text, result in zip(texts, results, strict=True) if isinstance(result, str)]
    assert not failed, "\n".join(failed)
    assert texts
    assert results == [len(re.findall(r"^def test_", text, flags=re.MULTILINE)) for text in texts]


def test_the_tests_that_a_page_names_are_there() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("*.py"))
    named = {name for page in FRAMEWORK_PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) >= 6
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


def test_every_page_has_its_room() -> None:
    assert sorted(page.stem.replace("-", "_") for page in FRAMEWORK_PAGES) == sorted(room.name for room in ROOMS)
