"""The deadline of an execution. Its metadata keep it, so that it passes from parent to child."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import AgentContext, JSONValue, require_aware

KEY: Final = "agents.deadline"


def as_metadata(deadline: datetime | timedelta | None) -> dict[str, JSONValue]:
    """Return the metadata that hold a deadline; a duration counts from now.

    Raise `InvalidRecord` for a moment without a time zone, and for a duration that is not positive.
    """
    if deadline is None:
        return {}
    if isinstance(deadline, timedelta):
        if deadline <= timedelta(0):
            raise InvalidRecord("deadline", f"needs a positive duration, not {deadline}")
        try:
            deadline = datetime.now(UTC) + deadline
        except OverflowError as error:
            raise InvalidRecord("deadline", f"{deadline} is too long") from error
    if not isinstance(deadline, datetime):
        raise InvalidRecord("deadline", f"needs a datetime or a timedelta, not {deadline!r:.80}")
    require_aware("deadline", deadline)
    return {KEY: deadline.isoformat()}


def added_to(metadata: Mapping[str, JSONValue], deadline: datetime | timedelta | None) -> dict[str, JSONValue]:
    """Return a caller's metadata with the deadline added. Raise `InvalidRecord`, also if they hold one already."""
    if not isinstance(metadata, Mapping):
        raise InvalidRecord("metadata", "needs a mapping")
    if KEY in metadata:
        raise InvalidRecord("metadata", f"{KEY!r} is not to be given there, but as the deadline")
    return {**metadata, **as_metadata(deadline)}


def of(context: AgentContext, within: timedelta | None) -> datetime | None:
    """Return the earlier of an execution's own deadline and the end of its agent's time, counted from creation.

    Raise `InvalidRecord` for metadata that somebody wrote past `enqueue`.
    """
    given = context.metadata.get(KEY)
    moments = [] if within is None else [context.created_at + within]
    if given is not None:
        try:
            moments.append(moment := datetime.fromisoformat(given))
        except (TypeError, ValueError) as error:
            raise InvalidRecord(f"metadata[{KEY!r}]", f"{given!r:.80} is no moment in ISO 8601") from error
        require_aware(f"metadata[{KEY!r}]", moment)
    return min(moments, default=None)
