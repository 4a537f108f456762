"""Where the documents of a thread stand.

    ("thread", THREAD)                    holder     who holds the thread; see `agent_statestore.documents.holding`
    ("thread", THREAD)                    id         the thread's id, where THREAD is a hash of it
    ("thread", THREAD, "graph", NS)       ID ~~      checkpoint ID in the checkpoint namespace NS
    ("thread", THREAD, "graph", NS)       ID TASK N  writes of a task on top of that checkpoint, those numbered N
    ("thread", THREAD, "blobs", NS)       CHANNEL V  the value that a channel has in version V

So a checkpoint stands with its writes, behind them, and before all later checkpoints. What may be any text is hashed
where a name of a document is none, or is too long; the text itself is then in the document. A space is less than every
character of a checkpoint's id, so that ids keep their order.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from agent_statestore.documents import Namespace
from agent_statestore.documents.places import plain_part, safe_part
from agent_statestore.errors import InvalidRecord

THREADS: Final = ("thread",)
ID_KEY: Final = "id"
GRAPH: Final = "graph"
BLOBS: Final = "blobs"

_ROOT_NS: Final = "-"
_CHECKPOINT: Final = "~~"
# No part that `safe_part` writes begins so, and no part that is plain.
_HASHED: Final = "%~"
_HASH_DIGITS: Final = 40
# Together they are less than the 670 characters of a place. A session's id has up to 255, before some are escaped.
_MOST_OF_A_THREAD: Final = 280
_MOST_OF_A_NS: Final = 180
_MOST_OF_A_PART: Final = 80
# Behind every key that begins with a checkpoint's id and a space.
_BEHIND_SPACE: Final = "!"
_PART: Final = re.compile(r"[!-$&-}][!-~]*")
_ID: Final = re.compile(r"[!-~]+")


def thread_root(thread_id: str) -> Namespace:
    """Return the root of all that is kept of a thread."""
    try:
        thread_id.encode()
        part = safe_part(thread_id)
    except UnicodeEncodeError:
        part = ""
    return (*THREADS, part if 0 < len(part) <= _MOST_OF_A_THREAD else _hash(thread_id))


def thread_id_of(root: Namespace) -> str:
    """Return the id of a thread whose root is no hash of it."""
    return plain_part(root[1])


def is_hashed(root: Namespace) -> bool:
    """Return whether the thread's id cannot be told from its root."""
    return root[1].startswith(_HASHED)


def graph_of(root: Namespace, checkpoint_ns: str | None = None) -> Namespace:
    """Return where the checkpoints of a thread stand, and their writes; without a checkpoint namespace, of all."""
    return _below(root, GRAPH, checkpoint_ns)


def blobs_of(root: Namespace, checkpoint_ns: str | None = None) -> Namespace:
    """Return where the values of channels stand; without a checkpoint namespace, those of all."""
    return _below(root, BLOBS, checkpoint_ns)


def checkpoint_key(checkpoint_id: str) -> str:
    """Return the key of a checkpoint. Raise `InvalidRecord` for an id without a place in the order of ids."""
    if not is_checkpoint_id(checkpoint_id):
        raise InvalidRecord("checkpoint_id", f"needs 1 to 80 printable characters of ASCII, not {checkpoint_id!r:.80}")
    return f"{checkpoint_id} {_CHECKPOINT}"


def is_checkpoint_id(checkpoint_id: object) -> bool:
    """Return whether a checkpoint can have this id. LangGraph's are UUIDs."""
    return (
        isinstance(checkpoint_id, str)
        and len(checkpoint_id) <= _MOST_OF_A_PART
        and _ID.fullmatch(checkpoint_id) is not None
    )


def writes_key(checkpoint_id: str, task_id: str, numbers: Sequence[int]) -> str:
    """Return the key of writes with these numbers, which ascend."""
    checkpoint_key(checkpoint_id)
    are_in_row = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    named = f"{numbers[0]}..{numbers[-1]}" if are_in_row else _hash(",".join(map(str, numbers)))
    return f"{checkpoint_id} {_part(task_id)} {named}"


def blob_key(channel: str, version: object) -> str:
    """Return the key of a channel's value. Versions of different types are different ones."""
    text = version if isinstance(version, str) else f"{type(version).__name__}:{version}"
    return f"{_part(channel)} {_part(text)}"


def id_of(key: str) -> str:
    """Return the id of the checkpoint that a document of a graph belongs to."""
    return key.partition(" ")[0]


def is_checkpoint(key: str) -> bool:
    """Return whether a document of a graph is a checkpoint, and not a write."""
    return key.endswith(f" {_CHECKPOINT}")


def before_all_of(checkpoint_id: str) -> str:
    """Return the bound of keys before those of a checkpoint and its writes."""
    return f"{checkpoint_id} "


def behind_all_of(checkpoint_id: str) -> str:
    """Return the bound of keys behind those of a checkpoint and its writes."""
    return f"{checkpoint_id}{_BEHIND_SPACE}"


def _below(root: Namespace, kind: str, checkpoint_ns: str | None) -> Namespace:
    if checkpoint_ns is None:
        return (*root, kind)
    is_plain = _PART.fullmatch(checkpoint_ns) is not None and checkpoint_ns != _ROOT_NS
    return (*root, kind, _name(checkpoint_ns, _MOST_OF_A_NS, is_plain=is_plain) if checkpoint_ns else _ROOT_NS)


def _part(text: str) -> str:
    return _name(text, _MOST_OF_A_PART, is_plain=_PART.fullmatch(text) is not None)


def _name(text: str, most: int, *, is_plain: bool) -> str:
    return text if is_plain and len(text) <= most else _hash(text)


def _hash(text: str) -> str:
    return f"{_HASHED}{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:_HASH_DIGITS]}"
