"""What users type: JSON, moments, metadata, agents' states."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import click

from agent_statestore.records import JSONValue

_AWAY: Final = re.compile(r"(\d{1,6})\s*([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Moment(click.ParamType[datetime]):
    """A moment in ISO 8601 with a time zone; with `ago`, also "90s", "15m", "2h", "7d", "1w" before now.

    With `ahead`, these count from now into the future.
    """

    name = "moment"

    def __init__(self, *, ago: bool = False, ahead: bool = False) -> None:
        self._is_relative = ago or ahead
        self._sign = 1 if ahead else -1

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        del param, ctx
        return "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        away = _AWAY.fullmatch(value.strip()) if self._is_relative else None
        if away is not None:
            try:
                return datetime.now(UTC) + self._sign * timedelta(seconds=int(away[1]) * _SECONDS[away[2]])
            except (OverflowError, ValueError):
                self.fail(f"{value!r} is longer than any calendar goes", param, ctx)
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            example = "2h or 2026-03-01T09:00+01:00" if self._is_relative else "2026-03-01T09:00+01:00"
            self.fail(f"{value!r} is no moment; write {example}", param, ctx)
        if moment.utcoffset() is None:
            self.fail(f"{value!r} needs a time zone, as in {moment.isoformat()}+01:00, or Z for UTC", param, ctx)
        return moment


def parse_json(text: str, what: str) -> JSONValue:
    """Return the value of a JSON text. Raise a usage error that says what is wrong with it."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise click.UsageError(
            f"the {what} is not valid JSON: {error.msg} ({where}). A text needs double quotes inside the shell's: "
            "'\"like this\"'"
        ) from error
    except ValueError as error:  # also numbers longer than Python converts
        raise click.UsageError(f"the {what} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise click.UsageError(f"the {what} is not usable: it is nested too deeply") from error


def parse_answer(text: str, *, as_text: bool) -> JSONValue:
    """Return JSON if the text parses, otherwise the text. Raise a usage error for invalid text that begins with {."""
    if as_text:
        return text
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            raise click.UsageError(f"{text!r:.80} is not valid JSON: {error}. If it is a text, give --text") from error
        return text


def parse_metadata(items: Iterable[str]) -> dict[str, JSONValue]:
    """Return metadata from items that are `key=value`, whose value is text, or JSON objects; later items win."""
    metadata: dict[str, JSONValue] = {}
    for item in items:
        if item.lstrip().startswith("{"):
            metadata.update(parse_json(item, "metadata"))
            continue
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise click.UsageError(f"metadata is key=value or a JSON object, not {item!r}")
        metadata[key] = value
    return metadata


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
