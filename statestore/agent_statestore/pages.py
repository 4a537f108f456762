"""Keyset pages: a place in the order of `find`, and its text form."""

import base64
import binascii
import json
from typing import NamedTuple

from agent_statestore.errors import InvalidRecord


class Cursor(NamedTuple):
    """The place of one execution in the order of `find`; greater is newer."""

    created_us: int
    execution_id: str


def encode_cursor(place: Cursor) -> str:
    """The place as opaque text."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def decode_cursor(text: str) -> Cursor:
    """The place that `encode_cursor` wrote. Raises `InvalidRecord` for any other text."""
    try:
        created_us, execution_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(created_us, int) or not isinstance(execution_id, str):
            raise TypeError
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidRecord("cursor", f"{text!r} is not a cursor of this store") from error
    return Cursor(created_us, execution_id)


def check_limit(limit: int) -> None:
    """Raises `InvalidRecord` for a limit below 1."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidRecord("limit", f"needs a whole number of at least 1, not {limit!r}")
