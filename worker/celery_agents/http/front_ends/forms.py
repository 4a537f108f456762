"""The bodies that front ends send: fields that others have named, and more of them than we know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent_statestore.records import JSONValue
from celery_agents.http.bodies import BodyForm
from celery_agents.http.problems import Refused

OBJECTS: Final = (list, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenForm(BodyForm):
    """A form that leaves alone what it does not know: a newer front end sends more."""

    def check(self, value: JSONValue, what: str) -> dict[str, Any]:
        """Return the fields that it knows; see `BodyForm.check`."""
        if isinstance(value, dict):
            value = {name: field for name, field in value.items() if name in self.known}
        return BodyForm.check(self, value, what)


def objects(given: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a field that is a list of objects; an empty list if it is not there. Raise `Refused`."""
    values = given.get(name) or []
    if not all(isinstance(value, dict) for value in values):
        raise Refused(400, "InvalidBody", f"{name}: needs a list of objects")
    found: list[dict[str, Any]] = values
    return found
