"""`python -m celery_agents.demo`, which is also what `make demo` runs."""

import argparse
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final

_TITLE: Final = "celery-agents: a worker is killed in the middle of an agent's execution"


def main() -> int:
    """Return the exit code: 0 if every claim holds, 1 if one does not, 2 for wrong options."""
    parser = argparse.ArgumentParser(
        prog="python -m celery_agents.demo",
        description="Kill a worker in mid-execution, and prove that nothing was lost or done twice.",
    )
    parser.add_argument("--home", type=Path, help="an empty or new folder for all files (default: in .agents/demo/)")
    parser.add_argument("--answer", choices=("yes", "no"), help="answer the agent's question without asking you")
    arguments = parser.parse_args()

    home: Path = arguments.home or Path(".agents/demo") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    home = home.absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
        is_empty = not any(home.iterdir())
    except OSError as error:
        parser.error(f"{home} cannot be used ({error.strerror}): name another folder with --home")
    if not is_empty:
        parser.error(f"{home} is not empty")
    # Before anything that takes time to import, so that something is seen at once.
    print(_TITLE, flush=True)

    # The demo shows the defaults: settings around it must not lead it to anybody's servers.
    for name in list(os.environ):
        if name.startswith(("AGENTS_", "CELERY_")):
            del os.environ[name]
    os.environ["AGENTS_HOME"] = str(home)
    os.environ["AGENTS_IMPORTS"] = "celery_agents.demo.environment_audit.agent"

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    from celery_agents.demo.story import tell  # reads the environment that is set above

    try:
        return tell(home, arguments.answer)
    except KeyboardInterrupt:
        print("\nInterrupted; the workers are stopped.")
        return 130


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave in a way that stops the workers."""
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
