"""The question that `find` is asked, and the keyset pages that it answers with."""

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from agent_statestore.clock import to_us
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import require_aware
from agent_statestore.states import AgentState


class Cursor(NamedTuple):
    """The place of one execution in the order of `find`; greater is newer."""

    created_us: int
    execution_id: str


def encode_cursor(place: Cursor) -> str:
    """Return the place as opaque text."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def decode_cursor(text: str) -> Cursor:
    """Return the place that `encode_cursor` wrote. Raise `InvalidRecord` for any other text."""
    try:
        created_us, execution_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(created_us, int) or not isinstance(execution_id, str):
            raise TypeError
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidRecord("cursor", f"{text!r} is not a cursor of this store") from error
    return Cursor(created_us, execution_id)


def check_limit(limit: int) -> None:
    """Raise `InvalidRecord` for a limit below 1."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidRecord("limit", f"needs a whole number of at least 1, not {limit!r}")


def end_of_steps(after: int, limit: int | None) -> int | None:
    """Return the number of the last of at most `limit` steps behind `after`; None without a limit.

    Raise `InvalidRecord` for a limit below 1.
    """
    if limit is None:
        return None
    check_limit(limit)
    return max(after, 0) + limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The executions that `find` returns, and their order. An execution must match every filter that is given.

    `states` matches any of them; it takes any iterable and keeps a frozenset. `created_after` is inclusive,
    `created_before` is exclusive. `cursor` is the `next_cursor` of the page before. Raises `InvalidRecord` for a limit
    below 1, and for a time without a time zone.
    """

    session_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    states: Iterable[AgentState] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    limit: int = 50
    cursor: str | None = None
    oldest_first: bool = False

    def __post_init__(self) -> None:
        check_limit(self.limit)
        require_aware("created_after", self.created_after)
        require_aware("created_before", self.created_before)
        if self.states is not None:
            object.__setattr__(self, "states", frozenset(self.states))

    @property
    def among(self) -> frozenset[AgentState] | None:
        """The states as a set; None for any."""
        return None if self.states is None else frozenset(self.states)

    @property
    def equal(self) -> dict[str, str]:
        """The names and values of the filters that ask for one value."""
        wanted = {"session_id": self.session_id, "user_id": self.user_id, "agent_id": self.agent_id}
        return {name: value for name, value in wanted.items() if value is not None}

    @property
    def created_after_us(self) -> int | None:
        """`created_after` in microseconds since the epoch."""
        return None if self.created_after is None else to_us(self.created_after)

    @property
    def created_before_us(self) -> int | None:
        """`created_before` in microseconds since the epoch."""
        return None if self.created_before is None else to_us(self.created_before)

    @property
    def behind(self) -> Cursor | None:
        """The place behind which the page begins.

        Raises `InvalidRecord` for a cursor that `encode_cursor` did not make.
        """
        return None if self.cursor is None else decode_cursor(self.cursor)


EVERYTHING: Final = Query()
