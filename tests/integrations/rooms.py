"""The rooms of the frameworks, and what came of importing each and of running the blocks of its page."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from tests.docs.pages import FRAMEWORK_PAGES, ROOT, blocks
from tests.services.machine import scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room: the package that it alone imports, and what the blocks of its page share that takes long to import."""

    name: str
    package: str
    dear: tuple[str, ...] = ()

    @property
    def blocks(self) -> list[str]:
        """Those of its page."""
        (page,) = [page for page in FRAMEWORK_PAGES if page.stem == self.name.replace("_", "-")]
        return blocks(page)


# In an order in which each one's framework is loaded by nothing before it: agents of LangChain are graphs of LangGraph.
ROOMS: Final = (
    Room(name="openai_agents", package="agents"),
    Room(name="pydantic_ai", package="pydantic_ai", dear=("pydantic_ai.models.openai",)),
    Room(name="langgraph", package="langgraph", dear=("langchain_openai",)),
    Room(name="langchain", package="langchain"),
)


def import_and_run_all() -> list[dict[str, Any]]:
    """Return what `run_rooms` says: of what is outside of the rooms, and of each room."""
    given = [{"room": room.name, "package": room.package, "dear": room.dear, "blocks": room.blocks} for room in ROOMS]
    # Clients want keys to be made; nothing of the blocks uses one.
    keys = {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "PYTHONPATH": str(ROOT)}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AGENTS_")} | keys
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.integrations.run_rooms"],
        input=json.dumps(given),
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=scaled(150),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    came: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return came
