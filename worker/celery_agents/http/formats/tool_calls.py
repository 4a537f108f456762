"""Which call, that a model has asked for, a step belongs to in which a tool is called."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_statestore.records import JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What came of a call: an output, or why there is none. `is_denied` says that a person refused it."""

    output: JSONValue = None
    error: str | None = None
    is_denied: bool = False

    @classmethod
    def of(cls, data: Mapping[str, JSONValue]) -> "Returned":
        """Return what an event `step_recorded` tells of a tool."""
        if data.get("success") is not False:
            return cls(output=data.get("output"))
        error = data.get("error")
        kind, message = (error.get("type", ""), error.get("message", "")) if isinstance(error, dict) else ("", "")
        return cls(error=f"{kind}: {message}" if message else str(kind or "failed"))


@dataclass(slots=True)
class ToolCallBook:
    """The calls that models ask for, and the steps in which they are made.

    A step's name often has the call's id in it, as the integrations name them so. Otherwise the call is the first one
    of that tool, with the same arguments where these are known, that no other step has made.
    """

    _tools: dict[str, str] = field(default_factory=dict)
    _given: dict[str, str] = field(default_factory=dict)
    _steps: dict[str, str] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)
    _answered: set[str] = field(default_factory=set)

    def add(self, item_id: str, given: str, tool: str) -> str:
        """Note a call; return its id: that which the model has given, unless another call has it."""
        call_id = given if given and given not in self._tools else item_id
        self._tools[call_id] = tool
        self._given[call_id] = given
        return call_id

    def forget(self, call_id: str) -> None:
        """The call is void."""
        self._tools.pop(call_id, None)
        self._given.pop(call_id, None)

    def answer(self, call_id: str) -> None:
        """The call has returned."""
        self._answered.add(call_id)

    def of_step(self, step: str) -> str | None:
        """Return the call that this step makes, if that is known."""
        return self._steps.get(step)

    def match(
        self, step: str, tool: str, arguments_of: Mapping[str, JSONValue], arguments: JSONValue = None
    ) -> str | None:
        """Return the call that this step makes, and note it."""
        free = self._free(tool, set(self._steps.values()))
        named = [call for call in free if len(self._given[call]) > 3 and self._given[call] in step]
        call_id = self._first(named or free, arguments_of, arguments)
        if call_id is not None:
            self._steps[step] = call_id
        return call_id

    def asked(self, tool: str, arguments_of: Mapping[str, JSONValue], arguments: JSONValue) -> str | None:
        """Return the call that is to be approved, and note it: another approval is that of another call."""
        call_id = self._first(self._free(tool, self._asked), arguments_of, arguments)
        if call_id is not None:
            self._asked.add(call_id)
        return call_id

    def _free(self, tool: str, taken: set[str]) -> list[str]:
        return [
            call
            for call, name in self._tools.items()
            if name == tool and call not in taken and call not in self._answered
        ]

    @staticmethod
    def _first(calls: list[str], arguments_of: Mapping[str, JSONValue], arguments: JSONValue) -> str | None:
        if arguments is not None:
            # A tool may have got defaults that the model has left out: then no call has the same.
            calls = [call for call in calls if arguments_of.get(call) == arguments] or calls
        return calls[0] if calls else None
