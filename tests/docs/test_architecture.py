"""What docs/architecture.md draws and lists is what the code declares."""

import re
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from agent_statestore.states import ACTIVE, PAUSED, TRANSITIONS, AgentState
from tests.docs.pages import PAGES, ROOT, blocks

ARCHITECTURE = ROOT / "docs/architecture.md"
ANY_TO_ANY = "any of these may follow any other"


def drawn() -> tuple[dict[str, list[str]], list[tuple[str, str]], set[str]]:
    """The boxes with what is in each, the arrows, and the boxes in which any state may follow any other."""
    (drawing,) = [block for block in blocks(ARCHITECTURE, "mermaid") if block.startswith("stateDiagram")]
    boxes: dict[str, list[str]] = {}
    arrows: list[tuple[str, str]] = []
    free: set[str] = set()
    inside: list[str] = []
    for line in map(str.strip, drawing.splitlines()[1:]):
        if opened := re.fullmatch(r"state (\w+) \{", line):
            for box in inside:
                boxes[box].append(opened[1])
            inside.append(opened[1])
            boxes[opened[1]] = []
        elif line == "}":
            inside.pop()
        elif arrow := re.fullmatch(r"(\S+) --> ([^\s:]+)(?:: .*)?", line):
            arrows.append((arrow[1], arrow[2]))
            if inside:
                boxes[inside[-1]] += arrow.groups()[:2]
        elif note := re.fullmatch(rf"note right of (\w+): {ANY_TO_ANY}", line):
            free.add(note[1])
        else:
            assert re.fullmatch(r"\w+", line), line
            boxes[inside[-1]].append(line)
    return boxes, arrows, free


def test_the_drawing_has_the_transitions_of_the_code() -> None:
    boxes, arrows, free = drawn()

    def states(name: str) -> Iterator[AgentState]:
        if name in boxes:
            for part in boxes[name]:
                yield from states(part)
        else:
            yield AgentState(name)

    moves = {(state, state) for state in ACTIVE}  # as the sentence below the drawing says
    for start, end in arrows:
        if "[*]" not in (start, end):
            moves |= set(product(states(start), states(end)))
    for box in free:
        moves |= set(product(states(box), repeat=2))
    assert moves == {(start, end) for start, ends in TRANSITIONS.items() for end in ends}
    assert set(states("paused")) == PAUSED
    assert {start for start, end in arrows if end == "[*]"} == {state for state in AgentState if not TRANSITIONS[state]}


def test_the_list_of_layers_is_the_contract() -> None:
    (listed,) = [block for block in blocks(ARCHITECTURE, "text") if block.startswith("demo")]
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one["type"] == "layers" and one["containers"] == ["celery_agents"]]
    assert [re.split(r"  +", line)[0] for line in listed.splitlines()] == contract["layers"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_pages_name_are_there(page: Path) -> None:
    roots = "worker|statestore|tests|examples|benchmarks|tools|docs"
    named = set(re.findall(rf"`((?:{roots})/[\w./]*)`", page.read_text()))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_protocols_stand_in_the_files_that_are_named_for_them() -> None:
    named = re.findall(r"`(\w+)`\s+\(`([\w./]+\.py)`\)", ARCHITECTURE.read_text())
    assert len(named) >= 3
    for name, path in named:
        assert f"\nclass {name}(Protocol):" in (ROOT / path).read_text(), f"{name} is not in {path}"
