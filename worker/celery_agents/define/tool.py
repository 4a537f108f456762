"""`@tool`: a function that an agent may call on the world, with checked arguments and policies for its failures."""

import contextlib
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, get_args, overload

import pydantic

from agent_statestore.records import JSONValue, Message
from celery_agents.define import types
from celery_agents.define.crash_policy import CrashPolicy, OnCrash, Reconcile, crash_policy
from celery_agents.define.names import check_decorated, check_duration
from celery_agents.define.registry import Registry, default_registry
from celery_agents.define.retry import Retry
from celery_agents.errors import InvalidArguments, RegistrationError

P = ParamSpec("P")
T = TypeVar("T")

# True, False, or a function of the call's arguments by name.
RequiresApproval: TypeAlias = bool | Callable[[dict[str, Any]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The call that a tool is part of. A tool gets it in a parameter that is annotated with this class.

    `idempotency_key` is the same on every try of this call, whoever makes it: for services that take one. `key` is the
    step's in the journal, `tries` counts from 1.
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


class Tool(Generic[P, T]):
    """A registered tool. Calling it calls the function, with its arguments validated.

    Attributes:
        name: unique in the registry.
        description: the function's docstring.
        retry: when a failed call is tried again.
        timeout: how long one try may take.
        crash_policy: what is done about a call during which the process died; `reconcile` is its function, if any.
        approval_timeout: how long a person has to approve.
    """

    def __init__(
        self,
        function: Callable[P, T],
        *,
        name: str,
        retry: Retry,
        timeout: timedelta | None = None,
        on_crash: OnCrash = CrashPolicy.RETRY,
        requires_approval: RequiresApproval = False,
        approval_timeout: timedelta | None = None,
    ) -> None:
        for limit_name, limit in (("timeout", timeout), ("approval_timeout", approval_timeout)):
            if limit is not None:
                check_duration(name, limit_name, limit)
        if not isinstance(requires_approval, bool) and (
            not callable(requires_approval) or types.is_async(requires_approval)
        ):
            raise RegistrationError(
                name, f"requires_approval is True, False or a plain function, not {requires_approval!r:.80}"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise RegistrationError(name, "a tool is a function, not a generator")
        self.name = name
        self.retry = retry
        self.timeout = timeout
        self.approval_timeout = approval_timeout
        self.function = function
        self.description = inspect.getdoc(function) or ""
        self.origin = f"{function.__module__}.{function.__qualname__}"
        self._made_of = _what_it_is_made_of(function)
        self._requires_approval = requires_approval
        self.crash_policy, self.reconcile = crash_policy(name, on_crash)
        self._arguments = _Arguments(function, name)
        if self.reconcile is not None:
            self.check_reconcile(self.reconcile)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return cast(T, self.call(None, args, kwargs))

    def call(
        self,
        context: ToolContext | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        stand_in: Callable[..., Any] | None = None,
    ) -> Any:
        """Calls the function, or what stands in for it, with validated arguments. Raises `InvalidArguments`."""
        return self._arguments.call(stand_in or self.function, context, args, kwargs)

    def look_whether_it_happened(
        self,
        context: ToolContext,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        reconcile: Reconcile | None = None,
    ) -> Any:
        """Calls the reconcile function, or the one given in its place, with the arguments of the interrupted call."""
        reconcile = reconcile or self.reconcile
        assert reconcile is not None
        arguments = self._arguments.by_name(args, kwargs)
        wants_context = _context_parameter(reconcile)
        if wants_context is not None:
            arguments[wants_context] = context
        return reconcile(**arguments)

    def check_reconcile(self, reconcile: Reconcile) -> None:
        """Raises `RegistrationError` for a function that cannot be called with this tool's arguments by name."""
        names = {*self._arguments.names, _context_parameter(reconcile)} - {None}
        try:
            inspect.signature(reconcile).bind(**dict.fromkeys(map(str, names)))
        except TypeError as error:
            raise RegistrationError(
                self.name, f"its on_crash function is called with the tool's arguments, by name: {error}"
            ) from error

    def is_sibling_of(self, other: "Tool[..., Any]") -> bool:
        """Whether both are of one `def` that was run twice, as in a function that makes tools, with other values."""
        (code, captured), (other_code, other_captured) = self._made_of, other._made_of
        if code is None or code is not other_code:
            return False  # also after a reload, which compiles it anew
        return any(one is not another for one, another in zip_longest(captured, other_captured))

    @property
    def json_schema(self) -> dict[str, JSONValue]:
        """JSON Schema of the arguments, for models."""
        return self._arguments.json_schema()

    def describe_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JSONValue]:
        """The arguments by name, as JSON: what the journal keeps of a call. Raises `InvalidArguments`."""
        return self._arguments.describe(args, kwargs)

    def check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises `InvalidArguments` for arguments with which a call would fail."""
        self._arguments.bind(args, kwargs)

    def needs_approval(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a person has to approve of this call. Arguments that do not fit need none: the call fails."""
        if isinstance(self._requires_approval, bool):
            if not self._requires_approval:
                return False
            decide: Callable[[dict[str, Any]], bool] = lambda _: True  # noqa: E731
        else:
            decide = self._requires_approval
        try:
            bound = self._arguments.bind(args, kwargs)
        except InvalidArguments:
            return False
        return bool(decide(_by_name(bound)))


def _what_it_is_made_of(function: Callable[..., Any]) -> tuple[object, list[object]]:
    """The code of a function, and what else it got when its `def` was run; no code for what is no function."""
    plain = inspect.unwrap(function)
    if not inspect.isfunction(plain):
        return None, []
    return plain.__code__, [
        *(plain.__closure__ or ()),
        *(plain.__defaults__ or ()),
        *(plain.__kwdefaults__ or {}).values(),
    ]


def _context_parameter(function: Callable[..., Any]) -> str | None:
    """The parameter that gets the context of the call, if there is one."""
    for key, annotation in types.hints(function).items():
        if key != "return" and (annotation is ToolContext or ToolContext in get_args(annotation)):
            return key
    return None


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments as they are given: what `**kwargs` collects stands beside the others."""
    return {**dict(zip(bound.signature.parameters, bound.args, strict=False)), **bound.kwargs}


class _Arguments:
    """The parameters of a function: what it may be called with, and whether it wants the context of the call."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        hints = types.hints(function)
        try:
            signature = inspect.signature(types.plain_function(function) if isinstance(function, Tool) else function)
        except ValueError as error:
            raise RegistrationError(name, f"its parameters are not known: {error}") from error
        for key, parameter in signature.parameters.items():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise RegistrationError(name, f"a tool is called with arguments by name, which {key!r} cannot have")
        self._full_signature = signature
        self._context_parameter = _context_parameter(function)
        shown = [one for key, one in signature.parameters.items() if key != self._context_parameter]
        self._signature = signature.replace(parameters=shown)

        @functools.wraps(function)
        def collect(*args: Any, **kwargs: Any) -> inspect.BoundArguments:
            return self._signature.bind(*args, **kwargs)

        # Validation looks at this one, which never is async and never runs the tool's code.
        collect.__signature__ = self._signature  # type: ignore[attr-defined]
        collect.__annotations__ = {key: hint for key, hint in hints.items() if key in self._signature.parameters}
        self._collect: Callable[..., Any] = collect
        try:
            self._validate = pydantic.validate_call(collect)
        except pydantic.PydanticUserError as error:
            reason = str(error).partition("\n")[0]
            raise RegistrationError(name, f"the annotation of a parameter has no JSON form: {reason}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that there are, in their order."""
        parameters = self._signature.parameters.values()
        return tuple(one.name for one in parameters if one.kind is not one.VAR_KEYWORD)

    def by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The typed arguments, defaults and all, as keywords. Raises `InvalidArguments`."""
        return _by_name(self.bind(args, kwargs))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """The typed arguments. Raises `InvalidArguments`."""
        with contextlib.suppress(TypeError):  # validation says more
            # By name, so that an error says which one it is.
            args, kwargs = (), _by_name(self._signature.bind(*args, **kwargs))
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
        # At its own place among the parameters, which may be the first.
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
            described: dict[str, JSONValue] = types.to_json(types.ANY, _by_name(bound))
        except ValueError as error:
            raise InvalidArguments(self._name, [f"an argument has no JSON form: {error}"]) from error
        return described

    def json_schema(self) -> dict[str, JSONValue]:
        adapter: types.Adapter = pydantic.TypeAdapter(self._collect)  # type: ignore[arg-type]
        return adapter.json_schema()


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
    timeout: timedelta | None = None,
    on_crash: OnCrash = CrashPolicy.RETRY,
    requires_approval: RequiresApproval = False,
    approval_timeout: timedelta | None = None,
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
    timeout: timedelta | None = None,
    on_crash: OnCrash = CrashPolicy.RETRY,
    requires_approval: RequiresApproval = False,
    approval_timeout: timedelta | None = None,
    registry: Registry | None = None,
) -> Tool[P, T] | Callable[[Callable[P, T]], Tool[P, T]]:
    """Makes a function, plain or async, a tool.

    Its arguments are validated against its annotations (pydantic); a parameter annotated with `ToolContext` gets the
    context of the call. `name` defaults to the function's. For the retry parameters see `Retry`.

    `timeout` is for one try. `on_crash` says what is done about a call during which the process died: "retry", "ask",
    "fail", or a function that looks whether it happened; see `CrashPolicy` and `Happened`. `requires_approval` is True
    or a function of the arguments by name; a person then has `approval_timeout`, or for ever, to approve.
    """

    def register(function: Callable[P, T]) -> Tool[P, T]:
        check_decorated("tool", function)
        kinds = tuple(retry_on) if isinstance(retry_on, Iterable) else retry_on
        retry = Retry(retries=retries, retry_on=kinds, first_delay=first_delay, max_delay=max_delay)
        made = Tool(
            function,
            name=name or function.__name__,
            retry=retry,
            timeout=timeout,
            on_crash=on_crash,
            requires_approval=requires_approval,
            approval_timeout=approval_timeout,
        )
        (registry or default_registry).add_tool(made)
        return made

    return register if function is None else register(function)
