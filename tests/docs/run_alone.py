"""Run blocks of Python, each in a process and a folder of its own: the program behind `test_blocks`.

It reads a JSON list of blocks, and prints one JSON list: for each block the number of its tests, or its traceback.
"""

import gc
import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final

# A child's exit code is this and the number of its tests; Python's own for an error is 1.
NO_ERROR: Final = 100


def run(text: str) -> int:
    """Import the block as a module, as a reader would who pastes it into a file; run its tests, return their number."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        Path("pasted.py").write_text(text, encoding="utf-8")
        made = vars(importlib.import_module("pasted"))
        tests = [value for name, value in made.items() if name.startswith("test_")]
        for test in tests:
            test()
        os.chdir("/")  # before the folder goes away
    return len(tests)


def run_in_a_child(text: str) -> int | str:
    """Fork, so that nothing of a block reaches the next one, neither names nor what it has registered."""
    gc.freeze()  # or a child's first collection would copy all that was imported
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)  # where an error's traceback goes
        code = 1
        try:
            code = NO_ERROR + run(text)
        except BaseException:  # noqa: BLE001 - whatever it is, the parent is told
            traceback.print_exc()
        finally:
            # To take all that is imported down again would take longer than most blocks.
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as errors:
        said = errors.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code - NO_ERROR if code >= NO_ERROR else said


def main() -> None:
    """Import once what is dear, and nothing that a block would have to import itself to use it.

    The arguments are further modules that are dear.
    """
    import sqlalchemy  # noqa: F401

    import agent_statestore
    import celery_agents

    for package in (agent_statestore, celery_agents):
        for name in package.__all__:
            getattr(package, name)
    for name in sys.argv[1:]:
        importlib.import_module(name)
    blocks = json.load(sys.stdin)
    sys.stdout.write(json.dumps([run_in_a_child(block) for block in blocks]))


if __name__ == "__main__":
    main()
