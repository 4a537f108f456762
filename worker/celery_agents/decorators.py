"""`@agent` and `@tool`, which make agents and tools of Python functions."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec, TypeVar, overload

from agent_statestore.records import JSONValue
from celery_agents import current
from celery_agents.client.execution import Execution
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.crash_policy import CrashPolicy, OnCrash
from celery_agents.define.long_term_memory import LongTermMemory
from celery_agents.define.names import check_decorated
from celery_agents.define.origin import name_for
from celery_agents.define.registry import Registry, default_registry
from celery_agents.define.retry import Retry
from celery_agents.define.tool import RequiresApproval, Tool
from celery_agents.define.voting import Voting

P = ParamSpec("P")
T = TypeVar("T")


class Agent(AgentDefinition):
    """A registered agent, whose executions can be started.

    Its attributes are described at `AgentDefinition`, which is what the engine knows of an agent.
    """

    def enqueue(
        self,
        input: Any = None,  # noqa: A002 - the field's standard name
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, JSONValue] | None = None,
        idempotency_key: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        start_at: datetime | None = None,
        deadline: datetime | timedelta | None = None,
        execution_id: str | None = None,
        connection: Any = None,
        on_commit: Any = None,
    ) -> Execution:
        """Start an execution of this agent on the current app's workers; see `celery_agents.enqueue`."""
        return current.enqueue(
            self,
            input,
            session_id=session_id,
            user_id=user_id,
            metadata=metadata,
            idempotency_key=idempotency_key,
            queue=queue,
            priority=priority,
            start_at=start_at,
            deadline=deadline,
            execution_id=execution_id,
            connection=connection,
            on_commit=on_commit,
        )

    def enqueue_many(self, inputs: Iterable[Any], **options: Any) -> list[Execution]:
        """Start an execution of this agent for each of the inputs; see `celery_agents.enqueue_many`."""
        return current.enqueue_many(self, inputs, **options)


@overload
def agent(function: Callable[..., Any], /) -> Agent: ...
@overload
def agent(
    *,
    name: str | None = None,
    max_steps: int | None = None,
    max_attempts: int | None = None,
    queue: str | None = None,
    priority: int | None = None,
    deadline: timedelta | None = None,
    max_tokens: float | None = None,
    max_cost: float | None = None,
    on_limit: Literal["fail", "ask"] = "fail",
    session_policy: Literal["parallel", "queue", "reject", "interrupt", "rollback"] = "parallel",
    concurrency: int | None = None,
    concurrency_key: Callable[[Any], object] | None = None,
    rate_limit: str | None = None,
    memory: LongTermMemory | None = None,
    registry: Registry | None = None,
) -> Callable[[Callable[..., Any]], Agent]: ...
def agent(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    max_steps: int | None = None,
    max_attempts: int | None = None,
    queue: str | None = None,
    priority: int | None = None,
    deadline: timedelta | None = None,
    max_tokens: float | None = None,
    max_cost: float | None = None,
    on_limit: Literal["fail", "ask"] = "fail",
    session_policy: Literal["parallel", "queue", "reject", "interrupt", "rollback"] = "parallel",
    concurrency: int | None = None,
    concurrency_key: Callable[[Any], object] | None = None,
    rate_limit: str | None = None,
    memory: LongTermMemory | None = None,
    registry: Registry | None = None,
) -> Agent | Callable[[Callable[..., Any]], Agent]:
    """Make an agent of a function `(run, input) -> output`, plain or async.

    The annotation of `input` is its schema (pydantic); `enqueue` checks every input against it. The return annotation
    is the schema of the output. `name` defaults to the function's name; `Agent` describes the other parameters.
    """

    def register(function: Callable[..., Any]) -> Agent:
        check_decorated("agent", function)
        made = Agent(
            function,
            name=name or name_for(function),
            max_steps=max_steps,
            max_attempts=max_attempts,
            queue=queue,
            priority=priority,
            deadline=deadline,
            max_tokens=max_tokens,
            max_cost=max_cost,
            on_limit=on_limit,
            session_policy=session_policy,
            concurrency=concurrency,
            concurrency_key=concurrency_key,
            rate_limit=rate_limit,
            memory=memory,
        )
        (registry or default_registry).add_agent(made)
        return made

    return register if function is None else register(function)


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
    approvers: Iterable[str] = (),
    quorum: int = 1,
    rejections: int = 1,
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
    approvers: Iterable[str] = (),
    quorum: int = 1,
    rejections: int = 1,
    registry: Registry | None = None,
) -> Tool[P, T] | Callable[[Callable[P, T]], Tool[P, T]]:
    """Make a tool of a function, plain or async.

    Arguments are validated against the function's annotations (pydantic). A parameter annotated with `ToolContext` gets
    the context of the call. `name` defaults to the function's name; `Retry` describes the retry parameters.

    `timeout` is for one try. `on_crash` says what happens to a call during which the process died: "retry", "ask",
    "fail", or a function that looks whether the call took effect; see `CrashPolicy` and `Happened`. `requires_approval`
    is True or a function of the arguments by name. A person then has `approval_timeout` to approve the call, or
    unlimited time if that is None. With `approvers`, senders of these names alone may decide, each once: the call is
    made when `quorum` of them have approved, and refused when `rejections` of them have rejected it.
    """

    def register(function: Callable[P, T]) -> Tool[P, T]:
        check_decorated("tool", function)
        kinds = tuple(retry_on) if isinstance(retry_on, Iterable) else retry_on
        retry = Retry(retries=retries, retry_on=kinds, first_delay=first_delay, max_delay=max_delay)
        made = Tool(
            function,
            name=name or name_for(function),
            retry=retry,
            timeout=timeout,
            on_crash=on_crash,
            requires_approval=requires_approval,
            approval_timeout=approval_timeout,
            voting=Voting.of(approvers, quorum, rejections),
        )
        (registry or default_registry).add_tool(made)
        return made

    return register if function is None else register(function)
