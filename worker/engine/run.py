"""`Run`: an agent's door to everything durable."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from statestore.envelope import dump
from statestore.records import Action, JSONValue, Message
from worker import schema as types
from worker.engine.asking import MISSING, question
from worker.engine.attempt import Attempt
from worker.engine.memory import RunMemory
from worker.engine.stepping import Step
from worker.engine.work import PlainWork, TransactionalWork
from worker.retry import NO_RETRY, Retry
from worker.tool import Tool

P = ParamSpec("P")
T = TypeVar("T")


class Run:
    """One attempt at an execution, as the agent's function sees it.

    Everything that must survive a crash goes through here. After a crash the function is called again from its first
    line; what is recorded is returned from the journal instead of being done again, up to the point where the last
    attempt died. The code between steps therefore has to take the same way again: what differs from call to call
    (time, random numbers, the network) belongs into a step.
    """

    def __init__(self, attempt: Attempt, *, retry: Retry | None = None, returns: Any = MISSING) -> None:
        self._attempt = attempt
        self._retry = retry
        self._returns = returns

    @property
    def execution_id(self) -> str:
        """The execution's id (UUIDv7)."""
        return self._attempt.context.execution_id

    @property
    def agent_id(self) -> str:
        """The agent's name."""
        return self._attempt.context.agent_id

    @property
    def session_id(self) -> str | None:
        """The conversation that the execution belongs to."""
        return self._attempt.context.session_id

    @property
    def user_id(self) -> str | None:
        """The user for whom it runs."""
        return self._attempt.context.user_id

    @property
    def metadata(self) -> Mapping[str, JSONValue]:
        """What was given at `enqueue`."""
        return self._attempt.context.metadata

    @property
    def attempt(self) -> int:
        """Which claim of the execution this is, from 1."""
        return self._attempt.context.attempt

    @property
    def memory(self) -> RunMemory:
        """The working memory: a mapping of JSON values, stored with the next checkpoint."""
        return self._attempt.memory

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said up to this point of the code."""
        return self._attempt.memory.messages

    def step(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `function` and records what it returns, once in the life of the execution.

        If a step of this name (and occurrence) is recorded, its result is returned and `function` is not called; a
        recorded failure is raised again. Otherwise `function` runs, and its result is checkpointed before it is
        returned. The result goes through JSON and back by the function's return annotation, on the first run too, so
        that its type does not depend on whether there was a crash.

        Raises what `function` raises, and `InvalidResult`, `ValueTooLarge`, `MaxStepsExceeded`, `JournalMismatch`.
        """
        action, retry = Action(kind="step"), NO_RETRY
        if isinstance(function, Tool):
            described = function.describe_arguments(args, kwargs)
            # What cannot be recorded must not be done.
            dump(described, f"arguments of tool {function.name!r}", self._attempt.max_value_bytes)
            action, retry = Action(kind="tool", tool=function.name, input=described), function.retry
        step = Step(
            name=name,
            action=action,
            work=PlainWork(lambda: function(*args, **kwargs)),
            returns=self._returns_of(function, name),
            retry=self._retry or retry,
        )
        return cast(T, step.take(self._attempt))

    def tool(self, tool: Tool[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A step that calls a tool and bears its name."""
        return self.step(tool.name, tool, *args, **kwargs)

    def transaction(
        self, name: str, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """A step whose writes to the store's own database and whose checkpoint commit together: exactly once.

        `function` is called with a `sqlalchemy.Connection` of the store's database as its first argument, inside a
        transaction that is not its own to commit or roll back. Whenever the process dies, either its writes and the
        recorded result are there, or neither is. A try that fails is rolled back.

        Works on SQL stores, and a hybrid with a SQL store for its active executions; `NoTransactions` is raised
        elsewhere. The function must be done before the lease ends, and on SQLite it keeps all other writers waiting.
        Otherwise as `step`.
        """
        step = Step(
            name=name,
            action=Action(kind="transaction"),
            work=TransactionalWork(lambda connection: function(connection, *args, **kwargs)),
            returns=self._returns_of(function, name),
            retry=self._retry or NO_RETRY,
        )
        return cast(T, step.take(self._attempt))

    def options(self, *, retry: Retry | None = None, returns: Any = MISSING) -> "Run":
        """The same run, with other options for the steps that are taken through what is returned.

        `retry` replaces a tool's own policy; `returns` replaces the function's return annotation.
        """
        return Run(
            self._attempt,
            retry=self._retry if retry is None else retry,
            returns=self._returns if returns is MISSING else returns,
        )

    def say(self, role: str, content: JSONValue) -> None:
        """Adds to the conversation history. Stored with the next checkpoint."""
        self._attempt.memory.say(role, content, self._attempt.now())

    def remember(self, fact: JSONValue) -> None:
        """Adds a fact to the memory. Stored with the next checkpoint."""
        self._attempt.memory.remember(fact)

    def ask(
        self,
        prompt: JSONValue,
        *,
        schema: Any = MISSING,
        choices: Sequence[JSONValue] | None = None,
        timeout: timedelta | None = None,
        default: Any = MISSING,
        name: str = "ask",
    ) -> Any:
        """Asks a person, and pauses until there is an answer; no worker slot and no connection is held meanwhile.

        `schema` is the answer's type; `choices` lists the only answers allowed. Clients hold an answer against both
        before it is sent. After `timeout` the answer is `default`, or `AnswerTimeout` is raised. `name` is what an
        answer names the question by, for agents that ask more than one thing.
        """
        dump(prompt, "prompt", self._attempt.max_value_bytes)
        return question(name, prompt, schema, choices, timeout, default).put(self._attempt)

    def _returns_of(self, function: Callable[..., Any], name: str) -> types.Adapter:
        if self._returns is not MISSING:
            return types.adapter_for(self._returns, name)
        return types.result_adapter(function.function if isinstance(function, Tool) else function)
