"""`python -m examples.demo`, which is what `make demo` runs."""

import argparse
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Returns the exit code: 0 if everything that is claimed holds."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=sys.modules["examples.demo"].__doc__)
    parser.add_argument("--home", type=Path, help="an empty or new folder for all files (default: in .agents/demo/)")
    parser.add_argument("--answer", choices=("yes", "no"), help="answer the agent's question without asking you")
    arguments = parser.parse_args()

    os.chdir(ROOT)
    home: Path = arguments.home or Path(".agents/demo") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    home = home.absolute()
    if home.exists() and any(home.iterdir()):
        parser.error(f"{home} is not empty")
    home.mkdir(parents=True, exist_ok=True)

    # Settings of yours must not lead the demo to your servers: it shows the defaults.
    for name in list(os.environ):
        if name.startswith(("AGENTS_", "CELERY_")):
            del os.environ[name]
    os.environ["AGENTS_HOME"] = str(home)
    os.environ["AGENTS_IMPORTS"] = "examples.environment_audit.agent"

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    from examples.demo.story import tell  # reads the environment that is set above

    try:
        return tell(home, arguments.answer)
    except KeyboardInterrupt:
        print("\nInterrupted; the workers are stopped.")
        return 130


def _leave(number: int, frame: FrameType | None) -> None:
    """Lets the workers be stopped on the way out."""
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
