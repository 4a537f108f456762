"""When an execution has to be over: kept in its metadata, so that it passes from parent to child."""

from datetime import UTC, datetime, timedelta
from typing import Final

from statestore.records import AgentContext, JSONValue, require_aware

KEY: Final = "agents.deadline"


def as_metadata(deadline: datetime | timedelta | None) -> dict[str, JSONValue]:
    """The metadata that say so; a duration counts from now. Raises `InvalidRecord` for a moment without a time zone."""
    if deadline is None:
        return {}
    moment = datetime.now(UTC) + deadline if isinstance(deadline, timedelta) else deadline
    require_aware("deadline", moment)
    return {KEY: moment.isoformat()}


def of(context: AgentContext, within: timedelta | None) -> datetime | None:
    """The earlier of the moment that it was given and the end of the time that its agent has, counted from creation."""
    given = context.metadata.get(KEY)
    moments = [] if within is None else [context.created_at + within]
    if isinstance(given, str):
        moments.append(datetime.fromisoformat(given))
    return min(moments, default=None)
