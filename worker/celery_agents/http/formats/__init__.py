"""The formats in which the events of an execution are sent, by the name that a request gives: `?format=events`.

A new one is a class with the methods of `EventFormat`, and a line in `FORMATS`.
"""

from collections.abc import Mapping
from typing import Final

from celery_agents.http.formats.agui import AGUI
from celery_agents.http.formats.events import Events
from celery_agents.http.formats.protocol import EventFormat
from celery_agents.http.formats.ui_messages import UIMessages

FORMATS: Final[Mapping[str, type[EventFormat]]] = {"events": Events, "agui": AGUI, "ui-messages": UIMessages}

__all__ = ["FORMATS", "EventFormat"]
