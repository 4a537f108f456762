"""An agent as it is defined: a Python function `(run, input) -> output`, what goes in and comes out, its limits."""

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Literal

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import JSONValue
from celery_agents.define import types
from celery_agents.define.names import check_amount, check_count, check_duration
from celery_agents.define.turns import Turns
from celery_agents.errors import InvalidInput, RegistrationError

# How a run and an input are given to an agent's function.
_BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class AgentDefinition:
    """An agent as the engine knows it; what `@agent` makes can also be enqueued.

    Attributes:
        name: unique in the registry; the `agent_id` of its executions and the name that Flower shows.
        max_steps: how many steps one execution may take; None for the worker's setting.
        max_attempts: how many claims in a row may die without recording a step; None for the worker's setting.
        queue: Celery queue of its executions; None for the worker's setting.
        deadline: how long an execution may take from its creation, pauses included; None for ever.
        max_tokens: how much `run.spend` may count; None for any.
        max_cost: likewise.
        on_limit: "fail", or "ask" to pause and let a person raise a limit that is reached.
        turns: in which order, how many at once and how often its executions work. `session_policy` says what is done
            about several active ones in one session: "parallel" (nothing), "queue" (one works after the other, in the
            order of creation), or "reject" (`SessionBusy`). At most `concurrency` work at once, or of those with one
            `concurrency_key`, a function of the input; paused ones do not count. At most `rate_limit` of them start,
            such as "10/m" (s, m or h). All of it across all workers.
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
        deadline: timedelta | None = None,
        max_tokens: float | None = None,
        max_cost: float | None = None,
        on_limit: Literal["fail", "ask"] = "fail",
        session_policy: Literal["parallel", "queue", "reject"] = "parallel",
        concurrency: int | None = None,
        concurrency_key: Callable[[Any], object] | None = None,
        rate_limit: str | None = None,
    ) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise RegistrationError(name, "an agent is a function, not a generator")
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != 2 or any(one.kind not in _BY_POSITION for one in parameters):
            raise RegistrationError(name, "an agent is a function of two parameters, (run, input)")
        for limit_name, limit in (("max_steps", max_steps), ("max_attempts", max_attempts)):
            if limit is not None:
                check_count(name, limit_name, limit, 1)
        for limit_name, amount in (("max_tokens", max_tokens), ("max_cost", max_cost)):
            if amount is not None:
                check_amount(name, limit_name, amount)
        if deadline is not None:
            check_duration(name, "deadline", deadline)
        if on_limit not in ("fail", "ask"):
            raise RegistrationError(name, f"on_limit is 'fail' or 'ask', not {on_limit!r}")
        self.name = name
        self.function = function
        self.max_steps = max_steps
        self.max_attempts = max_attempts
        self.queue = queue
        self.deadline = deadline
        self.max_tokens = max_tokens
        self.max_cost = max_cost
        self.on_limit = on_limit
        self.turns = Turns.of(name, session_policy, concurrency, concurrency_key, rate_limit)
        self.is_async = types.is_async(function)
        self.origin = f"{function.__module__}.{function.__qualname__}"
        self.description = inspect.getdoc(function) or ""
        annotation = types.hints(function).get(parameters[1].name, inspect.Parameter.empty)
        self._input = types.adapter_for(annotation, name)
        self._output = types.result_adapter(function)
        functools.update_wrapper(self, function)

    def __call__(self, run: Any, input: Any) -> Any:  # noqa: A002 - the field's standard name
        return self.function(run, input)

    def encode_input(self, value: Any) -> JSONValue:
        """The input as JSON, held against the declared schema. Raises `InvalidInput`, which names the field."""
        try:
            encoded = types.to_json(self._input, self._input.validate_python(value))
            dump(encoded, "input")
        except pydantic.ValidationError as error:
            raise InvalidInput(self.name, types.problems(error)) from error
        except NotSerialisable as error:
            raise InvalidInput(self.name, [str(error)]) from error
        except ValueError as error:
            raise InvalidInput(self.name, [f"input: not JSON-serialisable: {error}"]) from error
        return encoded

    def decode_input(self, value: JSONValue) -> Any:
        """The typed input. Raises `InvalidInput` if the schema has changed since it was stored."""
        try:
            return types.from_json(self._input, value, "input")
        except pydantic.ValidationError as error:
            raise InvalidInput(self.name, types.problems(error)) from error

    def encode_output(self, value: Any) -> JSONValue:
        """The output as JSON. Raises `ValueError`."""
        return types.to_json(self._output, value)

    @property
    def input_schema(self) -> dict[str, JSONValue]:
        """JSON Schema of the input."""
        return self._input.json_schema()
