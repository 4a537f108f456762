"""What people and their pages are shown of what an execution waits for, as JSON."""

from datetime import UTC, datetime

from agent_statestore.records import JSONValue, Wait
from celery_agents.lifecycle.signals import shown


def wait_shown(waiting: Wait) -> dict[str, JSONValue]:
    """Return any wait: its kind, key and times."""
    times = {"since": moment_shown(waiting.asked_at), "until": moment_shown(waiting.wake_at)}
    return {"kind": waiting.kind.value, "key": waiting.key, **times, "refused": waiting.refused}


def question_shown(asked: Wait) -> dict[str, JSONValue]:
    """Return a question, with all that is needed to answer it."""
    schema = None if asked.schema is None else dict(asked.schema)
    return {"key": asked.key, **_round(asked), "prompt": asked.prompt, "schema": schema}


def approval_shown(asked: Wait) -> dict[str, JSONValue]:
    """Return an approval, with all that is needed to decide it."""
    call = shown(asked)
    told = {name: call[name] for name in ("tool", "description", "arguments", "digest")}
    told |= {name: call[name] for name in ("approvers", "quorum", "rejections", "votes") if name in call}
    return {"key": asked.key, **_round(asked), **told, "schema": None if asked.schema is None else dict(asked.schema)}


def moment_shown(moment: datetime | None) -> str | None:
    """Return a time in UTC, as ISO 8601."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _round(asked: Wait) -> dict[str, JSONValue]:
    return {"round": asked.round, "refused": asked.refused}
