"""Import the rooms one after the other, and run the blocks of each one's page: the program behind two tests.

To import a framework takes seconds, so one process does it once for both. It reads a JSON list of rooms, each with the
blocks of its page and further modules that they share; it prints one JSON list: which frameworks are loaded before any
room, and for each room the same after its import, and what came of each block.

Each block runs as it would alone: in a child of its own, in a folder of its own, as a module of its own that has
nothing but what it imports itself (see `tests.docs.run_alone`). That a module is loaded already makes its import quick,
and no name known.
"""

import importlib
import json
import os
import pathlib
import sys
from typing import Any


def main() -> None:
    """Import everything outside of the rooms, and then one room after the other."""
    import celery_agents
    from tests.docs.run_alone import run_in_a_child

    root = pathlib.Path(celery_agents.__path__[0])
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        in_a_room = "integrations" in parts and file.parent.name != "integrations"
        if not in_a_room and parts[-1] not in ("__init__", "__main__") and "flower" not in parts:
            importlib.import_module(".".join(parts))
    rooms: list[dict[str, Any]] = json.load(sys.stdin)
    frameworks = [room["package"] for room in rooms]

    def loaded() -> list[str]:
        return sorted(name for name in frameworks if name in sys.modules)

    came: list[dict[str, Any]] = [{"loaded": loaded()}]
    for room in rooms:
        importlib.import_module(f"celery_agents.integrations.{room['room']}")
        came.append({"loaded": loaded()})
        for name in room["dear"]:
            importlib.import_module(name)
        came[-1]["blocks"] = [run_in_a_child(block) for block in room["blocks"]]
    os.write(1, json.dumps(came).encode())


if __name__ == "__main__":
    main()
