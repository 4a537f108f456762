"""Fields of the bodies that front ends send."""

from collections.abc import Mapping
from typing import Any, Final

from celery_agents.http.problems import Refused

OBJECTS: Final = (list, type(None))


def objects(given: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a field that is a list of objects; an empty list if it is not there. Raise `Refused`."""
    values = given.get(name) or []
    if not all(isinstance(value, dict) for value in values):
        raise Refused(400, "InvalidBody", f"{name}: needs a list of objects")
    found: list[dict[str, Any]] = values
    return found
