"""A tool: a function by which an agent acts on the world, with checked arguments and policies for its failures."""

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import zip_longest
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast

from agent_statestore.records import JSONValue
from celery_agents.define import types
from celery_agents.define.arguments import Arguments, ToolContext, by_name, context_parameter
from celery_agents.define.crash_policy import CrashPolicy, OnCrash, Reconcile, crash_policy
from celery_agents.define.names import check_duration
from celery_agents.define.origin import Origin, wear
from celery_agents.define.retry import Retry
from celery_agents.define.voting import Voting
from celery_agents.errors import InvalidArguments, RegistrationError

P = ParamSpec("P")
T = TypeVar("T")

# True, False, or a function of the call's arguments by name.
RequiresApproval: TypeAlias = bool | Callable[[dict[str, Any]], bool]


class Tool(Generic[P, T]):
    """A registered tool. Calling it validates the arguments and calls the function.

    Attributes:
        name: unique in the registry.
        description: the function's docstring.
        retry: when a failed call is tried again.
        timeout: how long one try may take.
        crash_policy: what happens to a call during which the process died; `reconcile` is its function, if any.
        approval_timeout: how long a person has to approve.
        voting: who decides on a call that needs approval, and how many of them; anybody if None.
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
        voting: Voting | None = None,
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
        self.voting = voting
        self.function = function
        self.description = inspect.getdoc(types.unwrap(function)) or ""
        self.made = Origin.of(function)
        self.origin = self.made.name
        self._made_of = _what_it_is_made_of(function)
        self._requires_approval = requires_approval
        self.crash_policy, self.reconcile = crash_policy(name, on_crash)
        self._arguments = Arguments(
            function, name, plain=types.plain_function(function) if isinstance(function, Tool) else function
        )
        if self.reconcile is not None:
            self.check_reconcile(self.reconcile)
        wear(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return cast(T, self.call(None, args, kwargs))

    def call(
        self,
        context: ToolContext | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        stand_in: Callable[..., Any] | None = None,
    ) -> Any:
        """Call the function, or `stand_in` in its place, with validated arguments. Raise `InvalidArguments`."""
        return self._arguments.call(stand_in or self.function, context, args, kwargs)

    def look_whether_it_happened(
        self,
        context: ToolContext,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        reconcile: Reconcile | None = None,
    ) -> Any:
        """Call the reconcile function, or `reconcile` in its place, with the arguments of the interrupted call."""
        reconcile = reconcile or self.reconcile
        assert reconcile is not None
        arguments = self._arguments.by_name(args, kwargs)
        wants_context = context_parameter(reconcile)
        if wants_context is not None:
            arguments[wants_context] = context
        return reconcile(**arguments)

    def check_reconcile(self, reconcile: Reconcile) -> None:
        """Raise `RegistrationError` for a function that cannot be called with this tool's arguments by name."""
        names = {*self._arguments.names, context_parameter(reconcile)} - {None}
        try:
            inspect.signature(reconcile).bind(**dict.fromkeys(map(str, names)))
        except TypeError as error:
            raise RegistrationError(
                self.name, f"its on_crash function is called with the tool's arguments, by name: {error}"
            ) from error

    def is_sibling_of(self, other: "Tool[..., Any]") -> bool:
        """Return whether one `def` made both, run twice with other values, as in a function that makes tools."""
        (code, captured), (other_code, other_captured) = self._made_of, other._made_of
        if code is None or code is not other_code:
            return False  # also after a reload, which compiles it anew
        return any(one is not another for one, another in zip_longest(captured, other_captured))

    @property
    def json_schema(self) -> dict[str, JSONValue]:
        """JSON Schema of the arguments, for models."""
        return self._arguments.json_schema()

    def describe_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JSONValue]:
        """Return the arguments by name, as JSON, as the journal keeps them. Raise `InvalidArguments`."""
        return self._arguments.describe(args, kwargs)

    def read_arguments(self, arguments: Mapping[str, JSONValue]) -> dict[str, Any]:
        """Return arguments that a person gave, as JSON, as typed ones. Raise `InvalidArguments`."""
        return self._arguments.read(arguments)

    def check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise `InvalidArguments` for arguments with which a call would fail."""
        self._arguments.bind(args, kwargs)

    def problems(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with arguments that a person gives, one sentence per fault; an empty list if they do."""
        try:
            self.check_arguments((), self.read_arguments(arguments))
        except InvalidArguments as error:
            return error.problems
        except Exception as error:  # noqa: BLE001 - whatever a validator of the user's raises: they will not do
            return [f"{type(error).__name__}: {error}"]
        return []

    def needs_approval(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Return whether a person must approve this call. Invalid arguments need no approval: the call fails."""
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
        return bool(decide(by_name(bound)))


def _what_it_is_made_of(function: Callable[..., Any]) -> tuple[object, list[object]]:
    """Return a function's code and the values it got when its `def` ran; no code for anything but a function."""
    plain = inspect.unwrap(function)
    if not inspect.isfunction(plain):
        return None, []
    return plain.__code__, [
        *(plain.__closure__ or ()),
        *(plain.__defaults__ or ()),
        *(plain.__kwdefaults__ or {}).values(),
    ]
