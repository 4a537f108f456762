"""Each framework is imported in its own room only: nothing else of this project takes its time, or needs it."""

import subprocess
import sys

# The room of each framework, and the package that it alone imports.
ROOMS = {
    "openai_agents": "agents",
    "pydantic_ai": "pydantic_ai",
    "langgraph": "langgraph",
    "langchain": "langchain",  # whose agents are graphs of LangGraph
}

# Imports all modules outside of the rooms, and then one room after the other; says after each what is loaded.
PROGRAM = """
import importlib, pathlib, sys
import celery_agents
root = pathlib.Path(celery_agents.__path__[0])
for file in sorted(root.rglob("*.py")):
    parts = file.relative_to(root.parent).with_suffix("").parts
    in_a_room = "integrations" in parts and (file.parent.name != "integrations")
    if not in_a_room and parts[-1] not in ("__init__", "__main__") and "flower" not in parts:
        importlib.import_module(".".join(parts))
for room in [None, *sys.argv[1:]]:
    if room is not None:
        importlib.import_module(f"celery_agents.integrations.{room}")
    print(room, *sorted(name for name in {FRAMEWORKS} if name in sys.modules))
"""


def test_a_framework_is_imported_in_its_own_room_only() -> None:
    program = PROGRAM.replace("{FRAMEWORKS}", repr(sorted(ROOMS.values())))
    done = subprocess.run([sys.executable, "-c", program, *ROOMS], capture_output=True, text=True, check=True)
    found = [line.split() for line in done.stdout.splitlines()]
    seen: list[str] = []
    expected = [["None"]]
    for room, package in ROOMS.items():
        seen.append(package)
        expected.append([room, *sorted(seen)])
    assert found == expected
