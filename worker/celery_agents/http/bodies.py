"""The body of a request: JSON of a declared type, with the fields that the endpoint knows and no others."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

from agent_statestore.records import JSONValue
from celery_agents.http.messages import JSON, Request
from celery_agents.http.problems import Refused

# The name of a field, and the types that its value may have.
Fields: TypeAlias = Mapping[str, tuple[type, ...]]

TEXT: Final = (str,)
TEXT_OR_NULL: Final = (str, type(None))
NUMBER: Final = (int,)
NUMBER_OR_NULL: Final = (int, type(None))
OBJECT_OR_NULL: Final = (dict, type(None))
BOOLEAN: Final = (bool,)
LIST: Final = (list,)
ANYTHING: Final = (object,)
_NAMES: Final = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyForm:
    """The fields of a body: those that it needs, and those that it may have; if it is open, others are left alone."""

    required: Fields = field(default_factory=dict)
    optional: Fields = field(default_factory=dict)
    is_open: bool = False

    @property
    def known(self) -> Fields:
        """All fields."""
        return {**self.required, **self.optional}

    def read(self, request: Request) -> dict[str, Any]:
        """Return the fields of the body. An empty body is an object without fields. Raise `Refused`.

        The type must be declared: another site's page can make a browser send some bodies without asking first, but
        none that is `application/json`.
        """
        declared, _, parameters = request.content_type.partition(";")
        if declared.strip().lower() != JSON:
            raise Refused(415, "UnsupportedMediaType", f"the body needs the Content-Type {JSON}")
        charset = parameters.partition("charset=")[2].strip().strip('"').lower()
        if charset not in ("", "utf-8", "utf8"):
            raise Refused(415, "UnsupportedMediaType", "the body needs to be UTF-8")
        return self.check(_parse(request.body) if request.body.strip() else {}, "the body")

    def check(self, value: JSONValue, what: str) -> dict[str, Any]:
        """Return the fields of a value. Raise `Refused`.

        An unknown field is refused, because a misspelt one would be left out silently.
        """
        if not isinstance(value, dict):
            raise Refused(400, "InvalidBody", f"{what} needs to be a JSON object")
        known = self.known
        for name in sorted(() if self.is_open else value.keys() - known.keys()):
            raise Refused(400, "InvalidBody", f"{name!a:.80} is no field here; the fields are: {', '.join(known)}")
        for name, types in known.items():
            if name not in value:
                if name in self.required:
                    raise Refused(400, "InvalidBody", f"{name}: is missing")
            elif not isinstance(value[name], types) or (isinstance(value[name], bool) and int in types):
                raise Refused(400, "InvalidBody", f"{name}: needs {' or '.join(_NAMES[kind] for kind in types)}")
        return value


def _parse(body: bytes) -> JSONValue:
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_once_each)
    except UnicodeDecodeError as error:
        raise Refused(400, "InvalidBody", "the body is not UTF-8") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refused(400, "InvalidBody", f"the body is not valid JSON: {error.msg} ({where})") from error
    except ValueError as error:  # also numbers longer than Python converts
        raise Refused(400, "InvalidBody", f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise Refused(400, "InvalidBody", "the body is nested too deeply") from error


def _once_each(pairs: list[tuple[str, JSONValue]]) -> dict[str, JSONValue]:
    """Refuse an object with a name twice: a proxy that checks the body and this reader might see different values."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
