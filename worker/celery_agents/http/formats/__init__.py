"""The formats in which the events of an execution are sent, by the name that a request gives: `?format=events`.

A new one is a class with the methods of `EventFormat`, and a line in `FORMATS`.
"""

from collections.abc import Mapping
from typing import Final

from celery_agents.http.formats.events import Events
from celery_agents.http.formats.protocol import EventFormat

FORMATS: Final[Mapping[str, type[EventFormat]]] = {"events": Events}

__all__ = ["FORMATS", "EventFormat"]
