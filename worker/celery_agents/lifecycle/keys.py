"""Names that the engine makes, and why no user's name is ever one of them: idempotency keys and names of metadata.

Children and ticks of schedules are found again by keys that are made of public facts. If a caller could choose such a
key, the caller's execution would take the place of a child or of a tick. So all keys of the engine begin with
`RESERVED`, each kind with a word of its own behind it, and no key that a user gives may begin with that.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue
from celery_agents.define import deadline, turns

RESERVED: Final = "agents:"
_RESERVED_NAMES: Final = "agents."
_LONGEST: Final = 255


def of_child(parent_id: str, step: str) -> str:
    """Return the key of the child that a step of an execution starts."""
    return _fitting(f"{RESERVED}child:{parent_id}/", step)


def of_tick(entry: str, tick: str) -> str:
    """Return the key of the execution that a tick of a schedule's entry starts."""
    # The length says where the name of the entry ends: " @ " may be a part of it.
    return _fitting(f"{RESERVED}tick:{len(entry)}:", f"{entry} @ {tick}")


def check_given(key: str | None) -> None:
    """Raise `InvalidRecord` for a user's key that is of the form of the engine's keys."""
    if isinstance(key, str) and key.startswith(RESERVED):
        raise InvalidRecord("idempotency_key", f"{key!r:.80} begins with {RESERVED!r}, as only keys of the engine do")


def check_metadata(metadata: Mapping[str, JSONValue] | None) -> None:
    """Raise `InvalidRecord` for metadata under a name that the engine uses: a fork's origin, say, or a deadline."""
    for name in metadata if isinstance(metadata, Mapping) else ():
        # Those two are refused with advice, where they are set.
        if isinstance(name, str) and name.startswith(_RESERVED_NAMES) and name not in (deadline.KEY, turns.KEY):
            raise InvalidRecord("metadata", f"{name!r:.80} is not to be given there: the engine sets it")


def _fitting(start: str, rest: str) -> str:
    """Return both as one key; a rest that is too long is replaced by its digest."""
    key = f"{start}{rest}"
    return key if len(key) <= _LONGEST else f"{start}{sha256(rest.encode()).hexdigest()}"
