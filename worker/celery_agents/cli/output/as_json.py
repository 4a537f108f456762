"""Records as JSON for machines. Field names are those of `agent_statestore.records` and stay stable.

Moments are ISO 8601 in UTC, durations are numbers of seconds, and states and kinds are their values.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from agent_statestore.plain_text import is_unseen
from agent_statestore.records import AgentContext, AgentStep, AuditEntry, ErrorInfo, ExecutionSummary, JSONValue, Page
from agent_statestore.stats import Stats
from celery_agents.engine.journal.spending import spent_in

if TYPE_CHECKING:
    from celery_agents.replay import Difference

_BEYOND_ASCII: Final = re.compile("[^\x00-\x7e]")

Record: TypeAlias = ExecutionSummary | AgentStep | AuditEntry | ErrorInfo


def of_record(record: Record) -> dict[str, JSONValue]:
    """Return a record with everything in it as a JSON object."""
    return _object(record)


def of_context(context: AgentContext, steps_limit: int | None = None) -> dict[str, JSONValue]:
    """Return a whole context; with a limit, only its last steps. `step_count` tells how many there are.

    `spent` is what the execution has spent in all.
    """
    shown = {**_object(context), "spent": spent_in(context)}
    if steps_limit is not None:
        shown["steps"] = shown["steps"][max(0, len(context.steps) - steps_limit) :]
    return shown


def of_page(page: Page) -> dict[str, JSONValue]:
    """Return a page of `find`: its `items`, and the `next_cursor` or null."""
    return _object(page)


def of_stats(stats: Stats) -> dict[str, JSONValue]:
    """Return statistics as a JSON object."""
    return _object(stats)


def of_difference(difference: "Difference") -> dict[str, JSONValue]:
    """Return what `celery_agents.replay.diff` found, with both versions of each step and field that differs."""
    return _object(difference)


def write(value: JSONValue, *, indent: int | None = 2) -> None:
    """Print one JSON document, on one line without `indent`. Use pure ASCII where the output cannot carry more.

    What nobody sees is always written as JSON's escapes: a terminal obeys some of it, and a program reads the same.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    text = json.dumps(value, ensure_ascii=encoding != "utf8", indent=indent)
    click.echo(text if text.isascii() and "\x7f" not in text else _BEYOND_ASCII.sub(_escaped, text))


def _escaped(match: re.Match[str]) -> str:
    # Outside of texts JSON is ASCII, so that whatever is found stands in a text.
    return json.dumps(match[0])[1:-1].replace("\x7f", "\\u007f") if is_unseen(match[0]) else match[0]


def write_line(value: JSONValue) -> None:
    """Print one line of JSON lines."""
    write(value, indent=None)


def _object(record: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value):
        return _object(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
