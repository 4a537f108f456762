"""Agents among the tools of a loop agent: a call of one starts an execution of its own, and waits for its end."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from agent_statestore.records import JSONValue
from celery_agents.define.agent import AgentDefinition
from celery_agents.errors import InvalidArguments, InvalidInput

_INPUT: Final = "input"


class Usable(Protocol):
    """What the loop needs to know of a tool before it is called."""

    @property
    def name(self) -> str:
        """What a decision calls it."""
        ...

    @property
    def description(self) -> str:
        """What a model is told of it."""
        ...

    @property
    def json_schema(self) -> dict[str, JSONValue]:
        """JSON Schema of the arguments."""
        ...

    def check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises `InvalidArguments`."""
        ...

    def describe_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JSONValue]:
        """The arguments as JSON. Raises `InvalidArguments`."""
        ...


class Delegate:
    """An agent as a tool. Its arguments are the fields of its input, or `input` where that is no object."""

    def __init__(self, agent: AgentDefinition) -> None:
        self.agent = agent
        self.name = agent.name
        self.description = agent.description
        self._schema = agent.input_schema
        self._has_fields = self._schema.get("type") == "object" and "properties" in self._schema

    @property
    def json_schema(self) -> dict[str, JSONValue]:
        """See `Usable`."""
        if self._has_fields:
            return self._schema
        inner = dict(self._schema)
        definitions = inner.pop("$defs", None)
        return {
            "type": "object",
            "properties": {_INPUT: inner},
            "required": [_INPUT],
            "additionalProperties": False,
            **({"$defs": definitions} if definitions else {}),
        }

    def input_of(self, arguments: Mapping[str, JSONValue]) -> JSONValue:
        """The input that these arguments stand for. Raises `InvalidArguments`."""
        if self._has_fields:
            return dict(arguments)
        if set(arguments) != {_INPUT}:
            raise InvalidArguments(self.name, [f"needs the argument {_INPUT!r} and no other"])
        return arguments[_INPUT]

    def check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """See `Usable`."""
        self.describe_arguments(args, kwargs)

    def describe_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JSONValue]:
        """See `Usable`."""
        del args  # a decision names its arguments
        try:
            self.agent.encode_input(self.input_of(kwargs))
        except InvalidInput as error:
            raise InvalidArguments(self.name, error.problems) from error
        return dict(kwargs)
