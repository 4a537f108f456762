"""`python -m examples.support_desk`, which is what `make demo-llm` runs."""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

_TITLE: Final = "celery-agents: a support desk on Pydantic AI, whose worker is killed between two answers of the model"


def main() -> int:
    """Return the exit code: 0 if every claim holds, 1 if one does not, 2 for wrong options."""
    parser = argparse.ArgumentParser(prog="python -m examples.support_desk", description=(__doc__ or ""))
    parser.add_argument("--home", type=Path, help="an empty or new folder for all files (default: in .agents/desk/)")
    home: Path | None = parser.parse_args().home
    home = (home or Path(".agents/desk") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}").absolute()
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()):
        parser.error(f"{home} is not empty")
    # Before anything that takes time to import, so that something is seen at once.
    print(_TITLE, flush=True)

    for name in list(os.environ):
        if name.startswith(("AGENTS_", "CELERY_")):
            del os.environ[name]
    os.environ["AGENTS_HOME"] = str(home)
    os.environ["AGENTS_IMPORTS"] = "examples.support_desk.desk"
    os.environ["SUPPORT_DESK_ORDERS"] = str(home / "orders.db")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    from examples.support_desk.story import tell  # reads the environment that is set above

    try:
        return tell(home)
    except KeyboardInterrupt:
        print("\nInterrupted; the workers are stopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
