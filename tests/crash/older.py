"""Imported by a worker: makes it one of an earlier version, which reads the lowest format only.

There was no release before the second format, so no package of an earlier version exists that the tests could install.
What an earlier version would do with an execution is decided by one constant, the newest format that it reads; each
module that uses it is given the lower one here, before the worker opens its store. The agent's own code is older as
well: `versions` asks one question after the other, as a version did that could not keep two of them open.
"""

import os
import sys
from typing import Final

from agent_statestore import envelope
from agent_statestore.redis import scripts
from agent_statestore.sql.postgresql import writing

VARIABLE: Final = "CRASH_TEST_OLDER"


def become_older() -> None:
    """Read no format above the lowest."""
    newest = envelope.FORMAT
    assert newest > envelope.LOWEST, "there is no older version"
    for name, module in list(sys.modules.items()):
        if name.startswith("agent_statestore") and getattr(module, "FORMAT", None) == newest:
            module.FORMAT = envelope.LOWEST  # type: ignore[attr-defined] # which module has it is asked above
    for kept in (scripts.script, scripts.together, writing.checkpoint_statement):
        kept.cache_clear()


if os.environ.get(VARIABLE):
    become_older()
