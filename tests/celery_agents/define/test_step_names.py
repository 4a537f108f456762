"""A legal, stable name of a step for any text."""

import pytest

from celery_agents import step_name
from celery_agents.define.names import LONGEST_NAME, check_registered_name

TEXTS = [
    "search",
    "search for the weather in Łódź",
    "a#2",
    "a_2",
    "",
    " ",
    "#",
    "\x00",
    "\ud800",
    "\ud801",
    "line\nbreak\x1f",
    "https://example.org/mcp?key=1#part",
    "x" * LONGEST_NAME,
    "x" * (LONGEST_NAME + 1),
    "x" * 10_000,
    "\N{GRINNING FACE}" * 300,
]


def test_every_text_has_a_legal_name_of_its_own() -> None:
    names = [step_name(text) for text in TEXTS]
    for name in names:
        check_registered_name(name)
    assert len(set(names)) == len(TEXTS)
    assert [step_name(text) for text in TEXTS] == names
    for text in ("search", "a_2", "search for the weather in Łódź", "x" * LONGEST_NAME):
        assert step_name(text) == text


def test_what_can_be_read_stays() -> None:
    assert step_name("a#2").startswith("a_2-")
    assert step_name("https://example.org/mcp?key=1#part").startswith("https://example.org/mcp?key=1_part-")


def test_a_name_that_was_made_once_stays_the_same() -> None:
    # What is recorded under it would be lost by another way to make it.
    assert step_name("a#2") == "a_2-" + "0f902cf932"
    with pytest.raises(TypeError, match="takes a text"):
        step_name(7)  # type: ignore[arg-type]
