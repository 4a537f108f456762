"""What tools have returned, which the stream of an execution does not hold: read from its steps."""

from collections.abc import Sequence
from dataclasses import replace

from agent_statestore.records import JSONValue
from agent_statestore.store import Store
from agent_statestore.streams import StreamEvent, StreamKind


def with_outputs(store: Store, execution_id: str, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
    """Return the events: those that record the call of a tool with its `output` and `arguments`.

    The event of an end has its `output`, also where it was too large for the stream. One round trip if there is any of
    that, and none otherwise. Raise `StoreUnavailable`.
    """
    numbers = [number for event in events if (number := _number_of_tool(event))]
    steps = {} if not numbers else {step.step_number: step for step in store.get_steps(execution_id, min(numbers) - 1)}
    told = []
    for event in events:
        more: dict[str, JSONValue] = {}
        step = steps.get(_number_of_tool(event))
        if step is not None:
            more["arguments"] = step.action.input
            if step.result is not None and step.result.success:
                more["output"] = step.result.output
        elif event.kind == StreamKind.ENDED and "output" in _omitted(event):
            context = store.get_context(execution_id)
            more["output"] = None if context is None else context.output
        told.append(replace(event, data={**event.data, **more}) if more else event)
    return told


def _number_of_tool(event: StreamEvent) -> int:
    """Return the number of the step in which a tool was called; 0 for any other event."""
    number = event.data.get("number")
    is_tool = event.kind == StreamKind.STEP_RECORDED and event.data.get("action") == "tool"
    return number if is_tool and isinstance(number, int) else 0


def _omitted(event: StreamEvent) -> Sequence[JSONValue]:
    omitted = event.data.get("omitted")
    return omitted if isinstance(omitted, list | tuple) else ()
