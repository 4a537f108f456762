"""`python -m examples.web_chat`, which is what `make demo-web` runs."""

import argparse
import os
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final

_TITLE: Final = "celery-agents: a travel desk in the browser, on FastAPI, Celery and a scripted model"


def main() -> int:
    """Return the exit code: 0, or 1 if a claim of `--check` does not hold, 2 for wrong options."""
    parser = argparse.ArgumentParser(prog="python -m examples.web_chat", description=(__doc__ or ""))
    parser.add_argument("--home", type=Path, help="an empty or new folder for all files (default: in .agents/web/)")
    parser.add_argument("--host", default="127.0.0.1", help="where the page is served (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8017, help="0: one that is free (default: %(default)s)")
    parser.add_argument("--pace", type=float, default=0.07, help="seconds for each word of the scripted model")
    parser.add_argument("--check", action="store_true", help="play the traveller over HTTP, say what holds, and end")
    arguments = parser.parse_args()
    home = (arguments.home or Path(".agents/web") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}").absolute()
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()):
        parser.error(f"{home} is not empty")
    # Before anything that takes time to import, so that something is seen at once.
    print(_TITLE, flush=True)

    for name in list(os.environ):
        if name.startswith(("AGENTS_", "CELERY_")):
            del os.environ[name]
    os.environ["AGENTS_HOME"] = str(home)
    os.environ["AGENTS_IMPORTS"] = "examples.web_chat.desk"
    os.environ["WEB_CHAT_BOOKINGS"] = str(home / "bookings.db")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])

    is_over = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        del number, frame
        is_over.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    from examples.web_chat.story import check, serve  # reads the environment that is set above

    if arguments.check:
        return check(home, arguments.pace)
    serve(home, arguments.host, arguments.port, arguments.pace, is_over)
    return 0


if __name__ == "__main__":
    sys.exit(main())
