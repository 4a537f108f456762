"""Commands as bytes on the wire (RESP2), put together in one go: the driver's packer costs more than the sending."""

from collections.abc import Sequence
from typing import TypeAlias

Word: TypeAlias = str | bytes | int
Command: TypeAlias = Sequence[Word]


def pack(*commands: Command) -> bytes:
    """Return the commands, one after the other.

    Text that UTF-8 cannot carry is refused before, or cannot be an id. Asking for such an id must find nothing and not
    fail, so the text is replaced.
    """
    pieces: list[bytes] = []
    for command in commands:
        pieces.append(b"*%d\r\n" % len(command))
        for word in command:
            if not isinstance(word, bytes):
                word = word.encode("utf-8", "replace") if isinstance(word, str) else b"%d" % word
            pieces.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(pieces)
