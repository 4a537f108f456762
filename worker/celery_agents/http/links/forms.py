"""The part of a link's form that takes an answer, by the question's JSON Schema."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from agent_statestore.records import JSONValue
from celery_agents.errors import InvalidAnswer


class AnswerField(Enum):
    """What a person is given to answer in."""

    CHOICE = auto()
    TEXT = auto()
    NUMBER = auto()
    JSON = auto()


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """One field, and the choices of a `AnswerField.CHOICE`."""

    field: AnswerField
    choices: tuple[JSONValue, ...] = ()

    @classmethod
    def of(cls, schema: Mapping[str, JSONValue] | None) -> "AnswerForm":
        """Return the field in which answers that fit the schema are most easily given."""
        schema = schema or {}
        choices: Any = schema.get("enum")
        if isinstance(choices, list) and choices:
            return cls(AnswerField.CHOICE, tuple(choices))
        match schema.get("type"):
            case "boolean":
                return cls(AnswerField.CHOICE, (True, False))
            case "string":
                return cls(AnswerField.TEXT)
            case "integer" | "number":
                return cls(AnswerField.NUMBER)
        # Without a schema, most answers are texts.
        return cls(AnswerField.JSON if schema else AnswerField.TEXT)

    def read(self, given: Mapping[str, str]) -> JSONValue:
        """Return the answer that the form's fields say. Raise `InvalidAnswer`."""
        text = given.get("answer", "")
        if self.field is AnswerField.TEXT:
            return text.replace("\r\n", "\n")
        if self.field is AnswerField.CHOICE:
            if text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < len(self.choices):
                return self.choices[int(text)]
            raise InvalidAnswer("answer", ["choose one of the answers"])
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            what = "a number" if self.field is AnswerField.NUMBER else "JSON"
            raise InvalidAnswer("answer", [f"this is not {what}"]) from None
