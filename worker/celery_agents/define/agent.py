"""The definition of an agent: a Python function `(run, input) -> output`, its schemas and its limits."""

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Literal

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import JSONValue
from celery_agents.define import answers, likeness, types
from celery_agents.define.long_term_memory import BufferMemory, HybridMemory, LongTermMemory, VectorMemory
from celery_agents.define.names import check_amount, check_count, check_duration
from celery_agents.define.origin import Origin, innermost, wear
from celery_agents.define.turns import Turns
from celery_agents.errors import InvalidInput, RegistrationError

# The kinds of parameters through which an agent's function gets a run and an input.
_BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class AgentDefinition:
    """An agent as the engine knows it; an agent that `@agent` makes can also be enqueued.

    Attributes:
        name: unique in the registry; the `agent_id` of its executions and the name that Flower shows.
        max_steps: how many steps one execution may take; None means the worker's setting.
        max_attempts: how many claims in a row may die without recording a step; None means the worker's setting.
        queue: Celery queue of its executions; None means the worker's setting.
        priority: priority of their messages, 0 to 255, as the broker takes it; None means the broker's default.
        deadline: how long an execution may take from its creation, pauses included; None means for ever.
        max_tokens: how much `run.spend` may count; None means any amount.
        max_cost: likewise, for cost.
        on_limit: "fail", or "ask" to pause and let a person raise a limit that is reached.
        turns: the order in which its executions work, how many work at once, and how often they start, all of it across
            all workers. `session_policy` says what happens to several active executions in one session: "parallel"
            (nothing), "queue" (one works after the other, in the order of creation), "reject" (`SessionBusy`),
            "interrupt" (a new one cancels those before it, and begins when they are over) or "rollback" (the same, and
            what they had said to the session is taken out). At most `concurrency` executions work at once, or that many
            for each `concurrency_key`, a function of the input; paused ones do not count. At most `rate_limit` of them
            start, such as "10/m" (s, m or h).
        memory: what `run.recall` looks in: `BufferMemory`, `VectorMemory` or `HybridMemory`.
        is_async: whether its function is a coroutine function, which gets an `AsyncRun`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
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
    ) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise RegistrationError(name, "an agent is a function, not a generator")
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != 2 or any(one.kind not in _BY_POSITION for one in parameters):
            raise RegistrationError(name, "an agent is a function of two parameters, (run, input)")
        for limit_name, limit in (("max_steps", max_steps), ("max_attempts", max_attempts)):
            if limit is not None:
                check_count(name, limit_name, limit, 1)
        if priority is not None:
            check_count(name, "priority", priority, 0, 255)
        for limit_name, amount in (("max_tokens", max_tokens), ("max_cost", max_cost)):
            if amount is not None:
                check_amount(name, limit_name, amount)
        if deadline is not None:
            check_duration(name, "deadline", deadline)
        if memory is not None and not isinstance(memory, BufferMemory | VectorMemory | HybridMemory):
            raise RegistrationError(name, f"memory is a BufferMemory, VectorMemory or HybridMemory, not {memory!r:.80}")
        if on_limit not in ("fail", "ask"):
            raise RegistrationError(name, f"on_limit is 'fail' or 'ask', not {on_limit!r}")
        self.name = name
        self.function = function
        self.max_steps = max_steps
        self.max_attempts = max_attempts
        self.queue = queue
        self.priority = priority
        self.deadline = deadline
        self.max_tokens = max_tokens
        self.max_cost = max_cost
        self.on_limit = on_limit
        self.memory = memory
        self.turns = Turns.of(name, session_policy, concurrency, concurrency_key, rate_limit)
        # A plain decorator may stand between: what it returns is then a coroutine too.
        self.is_async = types.is_async(function) or inspect.iscoroutinefunction(innermost(function))
        limits = (
            max_steps,
            max_attempts,
            queue,
            priority,
            deadline,
            max_tokens,
            max_cost,
            on_limit,
            self.turns,
            memory,
        )
        self.made = Origin.of(function, *limits)
        self.origin = self.made.name
        self.description = inspect.getdoc(types.unwrap(function)) or ""
        annotation = types.hints(function).get(parameters[1].name, inspect.Parameter.empty)
        self._input = types.adapter_for(annotation, name)
        self._output = types.result_adapter(function)
        wear(self, function)

    def __call__(self, run: Any, input: Any) -> Any:  # noqa: A002 - the field's standard name
        return self.function(run, input)

    def encode_input(self, value: Any) -> JSONValue:
        """Return the input as JSON, checked against the schema, and read from it as a worker will read it.

        Raise `InvalidInput`, which names the field.
        """
        try:
            encoded = types.accepted(self._input, value, "input")
            dump(encoded, "input")
        except pydantic.ValidationError as error:
            raise InvalidInput(self.name, types.problems(error)) from error
        except NotSerialisable as error:
            raise InvalidInput(self.name, [str(error)]) from error
        except likeness.Changed as error:
            raise InvalidInput(self.name, [f"input: {error}"]) from error
        except ValueError as error:
            raise InvalidInput(self.name, [f"input: not JSON-serialisable: {error}"]) from error
        return encoded

    def decode_input(self, value: JSONValue) -> Any:
        """Return the typed input. Raise `InvalidInput` if the schema has changed since the input was stored."""
        try:
            return types.from_record(self._input, value, "input")
        except pydantic.ValidationError as error:
            raise InvalidInput(self.name, types.problems(error)) from error

    def encode_output(self, value: Any) -> JSONValue:
        """Return the output as JSON. Raise `InvalidResult` for one that could not be read from it as it is."""
        return types.round_trip(self._output, self.name, value)[1]

    def names(self) -> Mapping[str, Any]:
        """Return what the function's code can name: the types of its questions among others."""
        return answers.names_of(self.function)

    @property
    def input_schema(self) -> dict[str, JSONValue]:
        """JSON Schema of the input."""
        return self._input.json_schema()
