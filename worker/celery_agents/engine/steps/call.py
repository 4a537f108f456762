"""Makes a `Step` of what the code asks for: a function or a tool, with its arguments and options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from types import FunctionType
from typing import Any, Final

from agent_statestore.envelope import dump
from agent_statestore.records import Action
from celery_agents.define import types
from celery_agents.define.arguments import ToolContext
from celery_agents.define.called_as import CalledAs, CalledKind
from celery_agents.define.crash_policy import CrashPolicy, OnCrash, Reconcile, crash_policy
from celery_agents.define.names import check_function
from celery_agents.define.retry import NO_RETRY, Retry
from celery_agents.define.tool import Tool
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.pauses.approval import Approval
from celery_agents.engine.pauses.question import MISSING
from celery_agents.engine.steps.spending import spend
from celery_agents.engine.steps.step import Step
from celery_agents.engine.steps.taking import ReachedStep, reach
from celery_agents.engine.steps.work import PlainWork, TransactionalWork, Try
from celery_agents.engine.stream.speaking import live_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What `Run.options` may change; None, or nothing, leaves a tool's own."""

    retry: Retry | None = None
    returns: Any = MISSING
    timeout: timedelta | None = None
    on_crash: OnCrash | None = None
    called_as: CalledAs | None = None
    group: bool = False
    interruptible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that is to be made as a step of this name. `function` may be a `Tool`.

    `is_edited` says that a person gave its arguments, as JSON.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_edited: bool = False

    @classmethod
    def named_like(cls, function: Callable[..., Any]) -> "Call":
        """The call that a partial, or a function without arguments, stands for."""
        own = types.unwrap(function)
        own_name = own.name if isinstance(own, Tool) else types.name_of(own).rpartition(".")[2]
        return cls(name=own_name, function=function)

    def without_partials(self) -> "Call":
        """The same call of what is inside of any partials. A tool's rules count there, too."""
        function, args, kwargs = self.function, self.args, self.kwargs
        if not isinstance(function, partial):
            return self
        while isinstance(function, partial):
            args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
            function = function.func
        return replace(self, function=function, args=args, kwargs=kwargs)


_PLAIN: Final = Action(kind="step")


def is_plain(function: object) -> bool:
    """Return whether this is a function of Python's, which neither is a tool nor holds one."""
    return type(function) is FunctionType


def come_to(
    attempt: Attempt,
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: CallOptions,
) -> ReachedStep:
    """The code has come to a call: its step, as a person allowed it if that is needed. Raises as `Place` does."""
    if not is_plain(function):
        return Place.of(attempt, Call(name=name, function=function, args=args, kwargs=kwargs)).allowed(options)
    key = attempt.journal.come_to(name)
    step = _plain_step(attempt, name, function, args, kwargs, options)
    return ReachedStep(step, attempt, key, attempt.journal.look_up(key, step.action))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A call at its place in the code's order: the key of its step, and before it of the approval, if it needs one."""

    attempt: Attempt
    call: Call
    key: str
    approval: Approval | None
    approval_key: str

    @classmethod
    def of(cls, attempt: Attempt, call: Call) -> "Place":
        """The code has come to a call."""
        given: Any = call.function
        if not callable(given):
            check_function(f"step {call.name!r}", given)
        call = call.without_partials()
        key = attempt.journal.come_to(call.name)
        # Named after the call's own key, not by an occurrence of its own: where a rule lets some calls pass, an
        # approval of a later call would be taken for that of an earlier one.
        approval_key = f"approve {key}"
        approval = _approval_of(attempt, call, key, approval_key)
        if approval is not None:
            attempt.journal.pass_by((approval_key,), beside=key)
        return cls(attempt=attempt, call=call, key=key, approval=approval, approval_key=approval_key)

    def allowed(self, options: CallOptions) -> ReachedStep:
        """The step of the call, as a person allowed it if that is needed; unwinds the agent until then.

        Raises `ApprovalDenied`, `ApprovalExpired`, and what `build` raises.
        """
        call = self.call
        if self.approval is not None:
            edited = self.approval.get(self.attempt, self.approval_key)
            if edited is not None:
                call = replace(call, args=(), kwargs=edited, is_edited=True)
        return reach(self.attempt, build(self.attempt, call, options), self.key)


def _approval_of(attempt: Attempt, call: Call, key: str, approval_key: str) -> Approval | None:
    tool = call.function
    if not isinstance(tool, Tool):
        return None
    # One that was asked for stays asked for, and a call that was begun without stays so, whatever the rule says by now.
    if not attempt.has_begun(approval_key) and (
        attempt.has_begun(key) or not tool.needs_approval(call.args, call.kwargs)
    ):
        return None
    arguments = tool.describe_arguments(call.args, call.kwargs)
    return Approval.of_tool(tool, arguments)


def build(attempt: Attempt, call: Call, options: CallOptions) -> Step:
    """The step of a call. Raises `InvalidArguments` or `NotSerialisable` for what cannot be recorded."""
    if isinstance(call.function, Tool):
        return _tool_step(attempt, call, call.function, options)
    return _plain_step(attempt, call.name, call.function, call.args, call.kwargs, options)


def _plain_step(
    attempt: Attempt,
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: CallOptions,
) -> Step:
    does = function if attempt.stage is None else attempt.stage.stand_in(name, None) or function
    returns, is_async = types.what_it_returns(function)
    if options.returns is not MISSING:
        returns = types.adapter_for(options.returns, name)
    policy, reconcile = CrashPolicy.RETRY, None
    if options.on_crash is not None:
        policy, reconcile = crash_policy(name, options.on_crash)
    called = options.called_as
    return Step(
        name=name,
        # What cannot be recorded must not be done.
        action=_PLAIN if called is None else called.action(attempt.max_value_bytes),
        work=PlainWork(
            lambda _: does(*args, **kwargs),
            is_async,
            options.timeout,
            options.interruptible or (called is not None and called.kind is CalledKind.MODEL),
        ),
        returns=returns,
        retry=options.retry or NO_RETRY,
        crash_policy=policy,
        reconcile=None if reconcile is None else lambda _: reconcile(*args, **kwargs),
    )


def _tool_step(attempt: Attempt, call: Call, tool: Tool[..., Any], options: CallOptions) -> Step:
    if options.called_as is not None:
        raise TypeError(f"called_as is for functions that are no tools: tool {tool.name!r} is recorded as what it is")
    args, kwargs = call.args, call.kwargs
    stand_in = None if attempt.stage is None else attempt.stage.stand_in(call.name, tool.name)
    described = tool.describe_arguments(args, kwargs)
    # What cannot be recorded must not be done.
    dump(described, f"arguments of tool {tool.name!r}", attempt.max_value_bytes)
    if call.is_edited:
        kwargs = tool.read_arguments(kwargs)

    def look(this: Try, own: Reconcile | None = None) -> Any:
        return tool.look_whether_it_happened(_context_of(attempt, this), args, kwargs, own)

    policy = tool.crash_policy
    reconcile: Callable[[Try], Any] | None = look if tool.reconcile is not None else None
    if options.on_crash is not None:
        policy, own = crash_policy(call.name, options.on_crash)
        reconcile = None
        if own is not None:
            tool.check_reconcile(own)
            reconcile = partial(look, own=own)
    return Step(
        name=call.name,
        action=Action(kind="tool", tool=tool.name, input=described),
        work=PlainWork(
            lambda this: tool.call(_context_of(attempt, this), args, kwargs, stand_in),
            is_async=types.is_async(tool.function),
            timeout=options.timeout or tool.timeout,
        ),
        returns=_returns_of(tool.function, call.name, options),
        retry=options.retry or tool.retry,
        crash_policy=policy,
        reconcile=reconcile,
    )


def transaction(attempt: Attempt, call: Call, options: CallOptions) -> ReachedStep:
    """The code has come to a call that writes to the store's own database: its step."""
    if options.group:
        raise TypeError("a transaction is no group: it cannot take steps itself")
    function, args, kwargs = call.function, call.args, call.kwargs
    step = Step(
        name=call.name,
        action=Action(kind="transaction"),
        work=TransactionalWork(lambda connection: function(connection, *args, **kwargs)),
        returns=_returns_of(function, call.name, options),
        retry=options.retry or NO_RETRY,
    )
    return reach(attempt, step, attempt.journal.come_to(call.name))


def name_of_tool(tool: Tool[..., Any]) -> str:
    """What a call of the tool is named by default. Raises `TypeError` for what is no tool."""
    if not isinstance(tool, Tool):
        raise TypeError(f"needs a tool, which is a function with @tool, not {tool!r:.80}; see run.step for others")
    return tool.name


def idempotency_key(execution_id: str, key: str) -> str:
    """What names one call of one execution to the outside, on every try."""
    return f"{execution_id}/{key}"


def _context_of(attempt: Attempt, this: Try) -> ToolContext:
    context = attempt.context
    return ToolContext(
        execution_id=context.execution_id,
        agent_id=context.agent_id,
        session_id=context.session_id,
        user_id=context.user_id,
        metadata=context.metadata,
        memory=attempt.memory,
        messages=tuple(attempt.memory.conversation.messages),
        key=this.key,
        idempotency_key=idempotency_key(context.execution_id, this.key),
        tries=this.number,
        spend=partial(spend, attempt, this.key),
        stream=live_stream(attempt, this.key, this.number),
    )


def _returns_of(function: Callable[..., Any], name: str, options: CallOptions) -> types.Adapter:
    returns = options.returns
    return types.result_adapter(function) if returns is MISSING else types.adapter_for(returns, name)
