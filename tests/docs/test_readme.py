"""The story of the README: its commands, run in one shell as a reader types them, with the kill."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.docs.pages import ROOT, blocks
from tests.services.commands import Command, environment, wait_until
from tests.services.machine import scaled

README = ROOT / "README.md"
# The reader sees the agent at work for longer than a test needs to.
READING = "time.sleep(2)"

pytestmark = pytest.mark.crash


class Shell:
    """A bash with job control, as on a terminal, so that `%1` is the first command that was put into the background."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "shell.log"
        with self.said.open("wb") as output:
            self._bash = subprocess.Popen(
                ["bash", "--norc"],
                cwd=folder,
                env=environment(PYTHONPATH=""),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.type("set -m")

    def type(self, commands: str) -> None:
        """Type lines; each begins when the one before it is over."""
        assert self._bash.stdin is not None
        self._bash.stdin.write(commands.rstrip() + "\n")
        self._bash.stdin.flush()

    def wait_for(self, text: str) -> str:
        """Wait until something was said; return all that was."""
        return wait_until(f"{text!r} in {self.said.read_text()}", lambda: self._output_with(text), seconds=90)

    def _output_with(self, text: str) -> str | None:
        output = self.said.read_text()
        return output if text in output else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.type('for job in $(jobs -p); do kill -9 -- "-$job"; done\nexit')
        self._bash.communicate(timeout=scaled(30))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    agent = blocks(README)[0]
    assert READING in agent
    (tmp_path / "research.py").write_text(agent.replace(READING, "time.sleep(0.5)"))
    with Shell(tmp_path) as shell:
        yield shell


def commands(start: str) -> str:
    """The commands of the console block that begins with a command."""
    (block,) = [block for block in blocks(README, "console") if block.startswith(f"$ {start}")]
    return "\n".join(line.removeprefix("$ ") for line in block.splitlines())


def without_times(line: str) -> str:
    return re.sub(r" +\d+(\.\d+)?m?s ", " TIME ", line).partition("…")[0]


def test_the_worker_is_killed_and_the_execution_goes_on(shell: Shell, tmp_path: Path) -> None:
    shell.type(commands("export AGENTS_IMPORTS"))
    shell.wait_for("read page 1 ")
    shell.type(commands("kill -9"))
    asked = shell.wait_for("Publish 5 notes?")
    (execution_id,) = re.findall(r"^execution (\S+) of agent research$", asked, re.MULTILINE)
    shell.type(commands("celery -A celery_agents agents resume").replace("EXECUTION_ID", execution_id))
    said = shell.wait_for("\npublished 5 notes\n").splitlines()
    steps = [line[6:29].strip() for line in said if re.match(r" +\d+  ", line)]
    assert steps == ["search", *(f"read page {number}" for number in range(1, 6)), "ask", "publish"]
    assert any(line.startswith("completed after 8 steps, 3 attempts, ") for line in said)
    shown = iter(map(without_times, said))
    for line in blocks(README, "text")[0].splitlines():
        assert any(seen.startswith(without_times(line)) for seen in shown), line


def test_the_client_of_the_readme_says_what_it_shows(shell: Shell, tmp_path: Path) -> None:
    shell.type(commands("export AGENTS_IMPORTS").splitlines()[0])
    shell.type(commands("kill -9").splitlines()[1])
    (tmp_path / "client.py").write_text(blocks(README)[1])
    client = [sys.executable, "client.py"]
    with Command(client, cwd=tmp_path, env=environment(PYTHONPATH=""), log=tmp_path / "client.log") as running:
        assert running.wait(90) == 0, running.output
        pages = [f"page {number} about the sky" for number in range(1, 6)]
        assert running.output.splitlines() == [
            "Publish 5 notes?",
            f"1 search {pages}",
            *(f"{number + 1} read page {number} {page.upper()}" for number, page in enumerate(pages, 1)),
            "7 ask yes",
            "8 publish published 5 notes",
            "published 5 notes",
        ]


def test_the_app_of_ones_own_knows_the_commands(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(blocks(README)[2])
    listed = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "shop", "agents", "--help"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=""),
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    )
    assert "enqueue" in listed.stdout
