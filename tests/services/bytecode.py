"""Compiled modules that the processes of a run share, also where Python is told to write none.

Containers often set `PYTHONDONTWRITEBYTECODE`. Each of the hundreds of processes that the tests start would then
compile all that it imports, which takes three times as long as everything else at its start.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

TOLD_TO_WRITE_NONE: Final = "PYTHONDONTWRITEBYTECODE"
PREFIX: Final = "PYTHONPYCACHEPREFIX"
FOLDER: Final = Path(sys.prefix, ".bytecode")


def keep_bytecode() -> None:
    """Let this process and those that it starts keep it in a folder of the environment, and leave none in the sources.

    `make test` has set the same for the first process.
    """
    if os.environ.pop(TOLD_TO_WRITE_NONE, ""):
        sys.pycache_prefix = os.environ.setdefault(PREFIX, str(FOLDER))
        sys.dont_write_bytecode = False


def forget_temporary_bytecode() -> None:
    """Remove what was kept of modules in temporary folders, which no later run has."""
    shutil.rmtree(FOLDER / Path(tempfile.gettempdir()).relative_to("/"), ignore_errors=True)
