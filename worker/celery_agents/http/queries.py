"""The query string of a request: parameters of declared kinds, each of them once unless it may repeat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import require_name
from celery_agents.http.problems import Refused

MAX_QUERY_CHARACTERS: Final = 8192
_MOST_PARAMETERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of the query. `schema` is JSON Schema, for a text, a whole number, a boolean or one of some texts."""

    name: str
    description: str
    schema: Mapping[str, Any]
    repeats: bool = False

    def read(self, text: str) -> Any:
        """Return the value that a text stands for. Raise `Refused`."""
        if "enum" in self.schema:
            return self._one_of(text, self.schema["enum"])
        kind = self.schema["type"]
        if kind == "boolean":
            return self._one_of(text, ("true", "false")) == "true"
        if kind in ("integer", "number"):
            return self._number(text, whole=kind == "integer")
        try:
            require_name(self.name, text)
        except InvalidRecord as error:
            raise bad_query(str(error)) from error
        return text

    def _one_of(self, text: str, known: Any) -> str:
        if text not in known:
            raise bad_query(f"{self.name}: {text!a:.80} is none of {', '.join(known)}")
        return text

    def _number(self, text: str, *, whole: bool) -> float:
        least, most = self.schema["minimum"], self.schema["maximum"]
        digits = text if whole else text.replace(".", "", 1)
        # Not all that Python takes for a number: no sign, no space, no digits of other scripts, no "1e9".
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
            raise bad_query(f"{self.name}: {text!a:.80} is not a number from {least} to {most}")
        number = int(text) if whole else float(text)
        if not least <= number <= most:
            raise bad_query(f"{self.name}: needs a number from {least} to {most}, not {text:.80}")
        return number


def read_query(query: str, known: tuple[Parameter, ...], *, strict: bool) -> dict[str, Any]:
    """Return the values of the parameters by name; those that are not there are left out. Raise `Refused`.

    A parameter that is not known is left alone, as a token for `identify` may be; if `strict`, it is refused: a filter
    that is misspelt would show what it was to hide.
    """
    if len(query) > MAX_QUERY_CHARACTERS:
        raise Refused(414, "QueryTooLong", f"the query has more than {MAX_QUERY_CHARACTERS} characters")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except UnicodeError as error:
        raise bad_query("it is not UTF-8") from error
    except ValueError as error:
        raise bad_query(f"it has more than {_MOST_PARAMETERS} parameters") from error
    by_name = {parameter.name: parameter for parameter in known}
    found: dict[str, Any] = {}
    for name, text in pairs:
        parameter = by_name.get(name)
        if parameter is None:
            if strict:
                raise bad_query(f"{name!a:.80} is no parameter here; the parameters are: {', '.join(by_name)}")
        elif parameter.repeats:
            found.setdefault(name, []).append(parameter.read(text))
        elif name in found:
            raise bad_query(f"{name}: stands twice")
        else:
            found[name] = parameter.read(text)
    return found


def bad_query(message: str) -> Refused:
    """Return the refusal of a query."""
    return Refused(400, "InvalidQuery", f"the query: {message}")
