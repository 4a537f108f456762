"""The arguments of a tool: what a call may pass, and whether the tool wants the context of the call."""

import contextlib
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Unpack, get_args, get_origin

import pydantic

from agent_statestore.records import JSONValue, Message, require_amount
from celery_agents.define import likeness, types
from celery_agents.define.live import SILENT, LiveStream
from celery_agents.errors import InvalidArguments, RegistrationError


def nowhere(*, tokens: float = 0, cost: float = 0) -> None:
    """Count nothing: of a context that no execution has made."""
    require_amount("tokens", tokens)
    require_amount("cost", cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The call that a tool is part of. A tool gets it in a parameter annotated with this class.

    `idempotency_key` is the same on every try of this call, in any process: pass it to services that take such a key.
    `key` is the step's key in the journal. `tries` counts from 1. `spend(tokens=..., cost=...)` counts what the call
    has used up, in any thread; see `Run.spend`. `stream` says what it does, live.
    """

    execution_id: str
    agent_id: str
    session_id: str | None
    user_id: str | None
    metadata: Mapping[str, JSONValue]
    memory: Mapping[str, JSONValue]
    messages: tuple[Message, ...]
    key: str
    idempotency_key: str
    tries: int
    spend: Callable[..., None] = nowhere
    stream: LiveStream = SILENT

    def emit(self, value: JSONValue) -> None:
        """Say something into the stream of the execution, for whoever follows it; see `LiveStream.emit`."""
        self.stream.emit(value)


def context_parameter(function: Callable[..., Any]) -> str | None:
    """Return the parameter that gets the context of the call; None if there is none."""
    for key, annotation in types.hints(function).items():
        if key != "return" and (annotation is ToolContext or ToolContext in get_args(annotation)):
            return key
    return None


def by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Return the arguments as they are given: what `**kwargs` collects stands beside the others."""
    return {**dict(zip(bound.signature.parameters, bound.args, strict=False)), **bound.kwargs}


class Arguments:
    """The parameters of a function: what a call may pass, and whether the function wants the context of the call."""

    def __init__(self, function: Callable[..., Any], name: str, *, plain: Callable[..., Any]) -> None:
        self._name = name
        hints = types.hints(function)
        try:
            signature = inspect.signature(plain)
        except ValueError as error:
            raise RegistrationError(name, f"its parameters are not known: {error}") from error
        for key, parameter in signature.parameters.items():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise RegistrationError(name, f"a tool is called with arguments by name, which {key!r} cannot have")
        self._full_signature = signature
        self._context_parameter = context_parameter(function)
        shown = [one for key, one in signature.parameters.items() if key != self._context_parameter]
        self._signature = signature.replace(parameters=shown)

        @functools.wraps(function)
        def collect(*args: Any, **kwargs: Any) -> inspect.BoundArguments:
            return self._signature.bind(*args, **kwargs)

        # Validation looks at this function, which is never async and never runs the tool's code.
        collect.__signature__ = self._signature  # type: ignore[attr-defined]
        collect.__annotations__ = {key: hint for key, hint in hints.items() if key in self._signature.parameters}
        self._collect: Callable[..., Any] = collect
        try:
            self._validate = pydantic.validate_call(collect)
        except pydantic.PydanticUserError as error:
            reason = str(error).partition("\n")[0]
            raise RegistrationError(name, f"the annotation of a parameter has no JSON form: {reason}") from error
        self._adapters = {
            key: types.adapter_for(hint, name)
            for key, hint in collect.__annotations__.items()
            if get_origin(hint) is not Unpack
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters, in their order."""
        parameters = self._signature.parameters.values()
        return tuple(one.name for one in parameters if one.kind is not one.VAR_KEYWORD)

    def by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the typed arguments, including defaults, as keywords. Raise `InvalidArguments`."""
        return by_name(self.bind(args, kwargs))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """Return the typed arguments. Raise `InvalidArguments`."""
        with contextlib.suppress(TypeError):  # validation gives more detail
            # Pass them by name, so that an error names the argument.
            args, kwargs = (), by_name(self._signature.bind(*args, **kwargs))
        try:
            bound: inspect.BoundArguments = self._validate(*args, **kwargs)
        except pydantic.ValidationError as error:
            raise InvalidArguments(self._name, types.problems(error)) from error
        bound.apply_defaults()
        return bound

    def call(
        self,
        function: Callable[..., Any],
        context: ToolContext | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        if self._context_parameter is None:
            bound = self.bind(args, kwargs)
            return function(*bound.args, **bound.kwargs)
        given = {key: value for key, value in kwargs.items() if key != self._context_parameter}
        context = context or kwargs.get(self._context_parameter)
        if context is None and self._full_signature.parameters[self._context_parameter].default is not None:
            raise InvalidArguments(self._name, [f"{self._context_parameter}: needs a ToolContext, which a run gives"])
        bound = self.bind(args, given)
        # Put the context at its own place among the parameters, which may be the first.
        full = inspect.BoundArguments(self._full_signature, OrderedDict(bound.arguments))
        full.arguments[self._context_parameter] = context
        return function(*full.args, **full.kwargs)

    def describe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JSONValue]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(self._name, [str(error)]) from error
        bound.apply_defaults()
        try:
            return {name: self._described(name, value) for name, value in by_name(bound).items()}
        except likeness.Changed as error:
            raise InvalidArguments(self._name, [f"an argument cannot be recorded as it is: {error}"]) from error
        except ValueError as error:
            raise InvalidArguments(self._name, [f"an argument has no JSON form: {error}"]) from error

    def _described(self, name: str, value: Any) -> JSONValue:
        """Return an argument as JSON, which tells apart what its annotation does. It need not be valid."""
        if type(value) in (str, int, float, bool, NoneType):
            return value
        with contextlib.suppress(Exception):  # not what the annotation says, or not quite: it is validated at the call
            if not isinstance(value, dict | list):
                return types.carried(self._adapter(name), value, name)[1]
        return types.lossless(value)

    def read(self, arguments: Mapping[str, JSONValue]) -> dict[str, Any]:
        """Return arguments that came as JSON, such as `describe` returns, as typed ones. Raise `InvalidArguments`."""
        read: dict[str, Any] = {}
        for name, value in arguments.items():
            try:
                read[name] = types.from_record(self._adapter(name), value, name)
            except pydantic.ValidationError as error:
                raise InvalidArguments(self._name, types.problems(error, name)) from error
        return read

    def _adapter(self, name: str) -> types.Adapter:
        """Return the adapter of an argument of this name; all that `**kwargs` collects have one annotation."""
        parameters = self._signature.parameters
        if name not in parameters:
            name = next((key for key, one in parameters.items() if one.kind is one.VAR_KEYWORD), name)
        return self._adapters.get(name, types.ANY)

    def json_schema(self) -> dict[str, JSONValue]:
        adapter: types.Adapter = pydantic.TypeAdapter(self._collect)  # type: ignore[arg-type]
        return adapter.json_schema()
