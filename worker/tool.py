"""`@tool`: a function that an agent may call on the world, with checked arguments and a retry policy."""

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, overload

import pydantic

from statestore.records import JSONValue
from worker import schema
from worker.errors import InvalidArguments, RegistrationError
from worker.registry import Registry, default_registry
from worker.retry import Retry

P = ParamSpec("P")
T = TypeVar("T")


class _OwnFault(Exception):
    """Carries a ValidationError of the tool's own code past the check of its arguments."""

    def __init__(self, error: pydantic.ValidationError) -> None:
        super().__init__(error)
        self.error = error


def _telling_own_faults_apart(function: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except pydantic.ValidationError as error:
            raise _OwnFault(error) from error

    return call


class Tool(Generic[P, T]):
    """A registered tool. Calling it calls the function, with its arguments validated.

    Attributes:
        name: unique in the registry.
        description: the function's docstring.
        retry: when a failed call is tried again.
    """

    def __init__(self, function: Callable[P, T], *, name: str, retry: Retry) -> None:
        if inspect.iscoroutinefunction(function):
            raise RegistrationError(name, "a tool is a plain function; async functions are not supported yet")
        self.name = name
        self.retry = retry
        self.function = function
        self.description = inspect.getdoc(function) or ""
        self.origin = f"{function.__module__}.{function.__qualname__}"
        self._signature = inspect.signature(function)
        self._validate = pydantic.validate_call(_telling_own_faults_apart(function))
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._validate(*args, **kwargs)
        except _OwnFault as own:
            raise own.error from None
        except pydantic.ValidationError as error:
            raise InvalidArguments(self.name, schema.problems(error)) from error

    @property
    def json_schema(self) -> dict[str, JSONValue]:
        """JSON Schema of the arguments, for models."""
        adapter: schema.Adapter = pydantic.TypeAdapter(self.function)  # type: ignore[arg-type]
        return adapter.json_schema()

    def describe_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JSONValue:
        """The arguments by name, as JSON: what the journal keeps of a call. Raises `InvalidArguments`."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(self.name, [str(error)]) from error
        bound.apply_defaults()
        try:
            return schema.to_json(schema.ANY, dict(bound.arguments))
        except ValueError as error:
            raise InvalidArguments(self.name, [f"an argument has no JSON form: {error}"]) from error


@overload
def tool(function: Callable[P, T], /) -> Tool[P, T]: ...
@overload
def tool(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_on: Iterable[type[Exception]] = (Exception,),
    first_delay: timedelta = timedelta(seconds=1),
    max_delay: timedelta = timedelta(minutes=5),
    registry: Registry | None = None,
) -> Callable[[Callable[P, T]], Tool[P, T]]: ...
def tool(
    function: Callable[P, T] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_on: Iterable[type[Exception]] = (Exception,),
    first_delay: timedelta = timedelta(seconds=1),
    max_delay: timedelta = timedelta(minutes=5),
    registry: Registry | None = None,
) -> Tool[P, T] | Callable[[Callable[P, T]], Tool[P, T]]:
    """Makes a function a tool.

    Its arguments are validated against its annotations (pydantic). `name` defaults to the function's. For the retry
    parameters see `Retry`.
    """

    def register(function: Callable[P, T]) -> Tool[P, T]:
        retry = Retry(retries=retries, retry_on=tuple(retry_on), first_delay=first_delay, max_delay=max_delay)
        made = Tool(function, name=name or function.__name__, retry=retry)
        (registry or default_registry).add_tool(made)
        return made

    return register if function is None else register(function)
