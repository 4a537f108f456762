"""`@loop_agent`: makes a function that decides an agent."""

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from celery_agents.decorators import Agent, agent
from celery_agents.define import types
from celery_agents.define.origin import made_of
from celery_agents.define.registry import Registry, default_registry
from celery_agents.define.retry import NO_RETRY, Retry
from celery_agents.define.tool import Tool
from celery_agents.engine.run.run import Run
from celery_agents.loop.context import LoopContext
from celery_agents.loop.definition import Definition
from celery_agents.loop.loop import Loop


def loop_agent(
    *,
    name: str | None = None,
    tools: Sequence[Tool[..., Any] | Agent | str] = (),
    input: Any = Any,  # noqa: A002 - the field's standard name
    output: Any = Any,
    max_turns: int = 50,
    max_invalid: int = 3,
    retry: Retry = NO_RETRY,
    timeout: timedelta | None = None,
    registry: Registry | None = None,
    **agent_options: Any,
) -> Callable[[Callable[[LoopContext], Any]], Agent]:
    """Makes a function `decide(context) -> action`, plain or async, an agent that acts by its decisions, turn by turn.

    The function is any model or rule. It returns an action (`Think`, `UseTool`, `UseTools`, `AskUser`, `Respond`,
    `WaitFor`, `Complete`), the JSON of one as a text or a mapping, or either in a `Decision` that says what it has used
    up. It is called inside a step: a decision that is recorded is never asked for again. It must not take steps.

    `tools` are those that the agent may use, each given as such or by its name in the registry. An agent among them is
    a worker: calling it starts an execution of it, for whose end this one pauses. `input` and `output` are types, as
    the annotations of a plain agent's function are; the input opens the conversation. `retry` and `timeout` are for one
    call of the function. A decision that cannot be used (no action, an unknown tool, arguments or an output that do not
    fit) is told to the model, and asked for again up to `max_invalid` times in a row; then the execution fails with
    `InvalidDecision`. It fails with `MaxTurnsExceeded` where it would need more than `max_turns` turns, or asks a
    person with `on_limit="ask"`. All other options are those of `agent`.
    """

    def register(decide: Callable[[LoopContext], Any]) -> Agent:
        own_name = types.name_of(decide)
        definition = Definition(
            name=name or own_name.rpartition(".")[2],
            decide=decide,
            given_tools=tuple(tools),
            input=types.adapter_for(input, own_name),
            output=types.adapter_for(output, own_name),
            output_type=output,
            max_turns=max_turns,
            max_invalid=max_invalid,
            retry=retry,
            timeout=timeout,
            asks_at_limit=agent_options.get("on_limit") == "ask",
            registry=registry or default_registry,
        )

        def work(run: Run, input: Any) -> Any:  # noqa: A002 - as above
            return Loop(definition, run, input).to_end()

        # What an agent is known by: where it comes from, what it is for, and what goes in and out.
        work.__name__, work.__qualname__ = definition.name, own_name
        work.__module__ = getattr(decide, "__module__", None) or type(decide).__module__
        work.__doc__ = inspect.getdoc(decide)
        work.__annotations__ = {"run": Run, "input": input, "return": output}
        made_of(work, decide)
        return agent(name=definition.name, registry=definition.registry, **agent_options)(work)

    return register
