"""The example of README and `make demo-llm`: every claim that it makes about itself holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.commands import ROOT, environment
from tests.services.machine import scaled

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")


@pytest.mark.crash
def test_everything_that_it_claims_holds(tmp_path: Path) -> None:
    bytecode = {name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ}
    env = {name: value for name, value in environment(**bytecode).items() if name not in KEYS}
    ended = subprocess.run(
        [sys.executable, "-m", "examples.support_desk", "--home", str(tmp_path / "home")],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )
    said = ended.stdout
    assert ended.returncode == 0, said + ended.stderr
    for line in (
        "SIGKILL to worker 1",
        "find_order(number=1007)",
        "stock(article='espresso machine')",
        "the customer is asked: We have no other one.",
        "somebody has to agree to refund(",
        "refund(number=1007, amount=80.0",
        "done: Order 1007: refunded 80.0 euros",
    ):
        assert line in said, said
    assert said.count("  ok  ") == 4, said
    assert "FAILED" not in said
    assert said.index("SIGKILL") < said.index("stock(article")
