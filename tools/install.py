"""Make a virtual environment and install this project into it, with a line of progress every few seconds.

    python3 tools/install.py .venv            # what runs agents
    python3 tools/install.py .venv --dev      # and what tests, checks and measures them
    python3 tools/install.py .venv-lowest --lowest    # the same, in the lowest versions that pyproject.toml allows
    python3 tools/install.py .venv --llm      # what runs agents, and what the agent of `make demo-llm` is written with
    python3 tools/install.py .venv --web      # what runs agents, and what the page of `make demo-web` is served with
    python3 tools/install.py .venv-bench --bench      # the same, and what the benchmark compares executions with
    python3 tools/install.py .venv-frameworks --frameworks    # the same as --dev, and the frameworks with integrations

`make` calls it. It needs nothing but Python's own `venv` and the `pip` in it. Development's packages are installed by
`uv`, which takes seconds where pip takes minutes. uv does not read pip's settings; where it finds no packages without
them, pip installs.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parents[1]
SILENCE_SECONDS: Final = 4.0
RUNTIME: Final = "what runs agents: about 40 packages, 110 MB on the disk, half a minute to two minutes"
LLM: Final = "Pydantic AI and the clients of models: about 50 packages more, 120 MB, half a minute"
WEB: Final = "FastAPI, and what asks the model: about 13 packages more, 4 MB, some seconds"
DEVELOPMENT: Final = (
    "all that development needs, database servers included: about 100 packages, 460 MB, half a minute to some minutes"
)
LOWEST: Final = "all that development needs, each in the lowest version that pyproject.toml allows"
FRAMEWORKS: Final = f"{DEVELOPMENT}, and the frameworks that agents are written with"
BENCHMARK: Final = f"{DEVELOPMENT}, and the queues that the benchmark compares with"
# Other packages of development want newer ones of these than we do: kombu[redis] pins packaging, pytest-celery needs
# psutil 7. Nothing that we use of them depends on that, so their lowest versions are put in place afterwards.
HELD_UP: Final = ("packaging", "psutil")
# What pip and uv say about each package. The rest of their output repeats that, and is shown if they fail.
SHOWN: Final = (
    *("Collecting", "Obtaining", "Building", "Installing", "Preparing", "Getting", "Successfully", "WARNING"),
    *("Resolved", "Prepared", "Installed", "Built"),
)


class Failed(Exception):
    """A command ended with the exit code in `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main() -> int:
    """Return the exit code: 0, or that of the command that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the environment; what it holds already is kept")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--dev", action="store_true", help="with everything for development")
    kind.add_argument("--bench", action="store_true", help="the same, and what the benchmark compares with")
    kind.add_argument("--llm", action="store_true", help="with what the demo with a model needs")
    kind.add_argument("--web", action="store_true", help="with what the demo in the browser needs")
    kind.add_argument("--frameworks", action="store_true", help="the same as --dev, and the frameworks")
    kind.add_argument("--lowest", action="store_true", help="the same in the lowest versions, in a new environment")
    arguments = parser.parse_args()

    environment: Path = arguments.folder
    what, extras = RUNTIME, ""
    if arguments.lowest:
        what = LOWEST
    elif arguments.bench:
        what, extras = BENCHMARK, "dev,bench"
    elif arguments.frameworks:
        what, extras = FRAMEWORKS, "dev,frameworks"
    elif arguments.dev:
        what, extras = DEVELOPMENT, "dev"
    elif arguments.llm:
        what, extras = LLM, "llm"
    elif arguments.web:
        what, extras = WEB, "web"
    say(f"Installing into {environment}: {what}.")
    started = time.monotonic()
    try:
        if arguments.lowest:
            # What an environment holds stays if it is allowed, however new it is.
            shutil.rmtree(environment, ignore_errors=True)
        # pip comes last into a new environment: where it is missing, somebody interrupted the making of one.
        if not (environment / "bin/pip").exists():
            run([sys.executable, "-m", "venv", str(environment)], "making the environment", started)
        if arguments.lowest:
            install_lowest(environment, started)
        elif extras:
            install_development(environment, started, ["--editable", f"{ROOT}[{extras}]"])
        else:
            run([*pip(environment), "--editable", str(ROOT)], "pip is at work", started)
    except Failed as failure:
        return failure.code
    except KeyboardInterrupt:
        say("Interrupted. The next call goes on from here.")
        return 130
    return 0


def pip(environment: Path) -> list[str]:
    """Return the command that installs with pip into `environment`."""
    python = str(environment / "bin/python")
    return [python, "-m", "pip", "install", "--progress-bar=off", "--disable-pip-version-check"]


def install_development(environment: Path, started: float, *wanted: Sequence[str]) -> None:
    """Install what each of `wanted` names, in this order: with uv, or with pip where uv cannot."""
    python = str(environment / "bin/python")
    uv = [python, "-m", "uv", "pip", "install", "--no-progress", "--python", python]
    try:
        run([*pip(environment), "uv"], "pip is at work", started)
        for each in wanted:
            run([*uv, *each], "uv is at work", started)
    except Failed:
        say("uv cannot install here; pip does, which takes some minutes.")
        for each in wanted:
            run([*pip(environment), *each], "pip is at work", started)


def install_lowest(environment: Path, started: float) -> None:
    """Install what development needs in the lowest versions. A version that does not exist is a failure."""
    pins = lowest(requirements())
    constraints = environment / "lowest.txt"
    constraints.write_text("".join(f"{name}=={pin}\n" for name, pin in pins.items() if name not in HELD_UP))
    install_development(
        environment,
        started,
        ["--constraint", str(constraints), "--editable", f"{ROOT}[dev]"],
        ["--no-deps", *(f"{name}=={pins[name]}" for name in HELD_UP)],
    )


def requirements() -> list[str]:
    """Return the dependencies of pyproject.toml and those of all its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(each for extra in extras for each in extra)]


def extra(name: str) -> list[str]:
    """Return the requirements of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: list[str] = project["optional-dependencies"][name]
    return found


def lowest(requirements: Iterable[str]) -> dict[str, str]:
    """Return the lowest version that the requirements allow of each package. A package without one is left out."""
    found = (re.match(r"([\w.-]+)(?:\[[\w,-]*\])?[>=]=([\w.]+)", each) for each in requirements)
    return {each[1]: each[2] for each in found if each is not None}


def run(command: Sequence[str], doing: str, started: float) -> None:
    """Run `command` and show what it says; say `doing` whenever it has been silent. Raise `Failed` if it fails."""
    hidden: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=pump, args=(process.stdout, lines), daemon=True).start()
        spoke_at = time.monotonic()
        while True:
            try:
                line = lines.get(timeout=max(0.0, spoke_at + SILENCE_SECONDS - time.monotonic()))
            except queue.Empty:
                line = f"... {doing}"
            else:
                if line is None:
                    break
                if not line.startswith(SHOWN):
                    hidden.append(line)
                    continue
            say(f"{time.monotonic() - started:4.0f} s  {shortened(line)}")
            spoke_at = time.monotonic()
    if process.returncode != 0:
        say("\n".join([*hidden, f"failed: {' '.join(command)}"]))
        raise Failed(process.returncode)


def pump(source: IO[str], lines: "queue.Queue[str | None]") -> None:
    """Put every line of `source` into `lines`, and None at its end."""
    for line in source:
        lines.put(line.rstrip())
    lines.put(None)


def shortened(line: str) -> str:
    """Return what of the line fits into one of a terminal."""
    return line if len(line) <= 100 else f"{line[:97]}..."


def say(line: str) -> None:
    """Print the line now, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
