"""Makes the calls of one decision: approvals first, then all at once; every end of one is told to the model."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_statestore.errors import InvalidRecord
from celery_agents.define.tool import Tool
from celery_agents.engine.pauses.child import Child
from celery_agents.engine.run.run import Run
from celery_agents.engine.run.tool_calls import EndedCall, ToolCalls
from celery_agents.errors import ApprovalDenied, ApprovalExpired, ChildFailed, InvalidArguments, SpawnTooDeep
from celery_agents.loop.actions import ToolCall
from celery_agents.loop.context import LoopResult
from celery_agents.loop.delegates import Delegate, Usable

# What comes before a call, and is told as its failure, too.
_REFUSALS = (ApprovalDenied, ApprovalExpired, InvalidArguments, InvalidRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """The end of a call; `has_changed` says that a person changed its arguments."""

    result: LoopResult
    has_changed: bool = False


def make_calls(run: Run, calls: Sequence[tuple[ToolCall, Usable]]) -> list[CallEnd]:
    """The ends of all calls, in their order. Raises what is no failure of a tool: limits, contradictions.

    Executions of other agents are started before the tools are called, and waited for after that.
    """
    made, tool_calls = ToolCalls(run), [(call, tool) for call, tool in calls if isinstance(tool, Tool)]
    for call, tool in tool_calls:
        made.add(tool, call.arguments)
    made.allow()
    started = [_Start.of(run, call, tool) for call, tool in calls if isinstance(tool, Delegate)]
    ends = iter([_end_of(call, end) for (call, _), end in zip(tool_calls, made.make(), strict=True)])
    outputs = iter(_gather(run, started))
    return [next(ends) if isinstance(tool, Tool) else next(outputs) for _, tool in calls]


def _end_of(call: ToolCall, end: EndedCall) -> CallEnd:
    arguments, recorded = dict(call.arguments if end.changed is None else end.changed), end.result
    if end.error is not None:
        has_failed = recorded is not None and not recorded.success
        if not has_failed and not isinstance(end.error, _REFUSALS):
            raise end.error
        result = LoopResult.of_failure(call.tool, end.error, call_id=call.id, arguments=arguments)
    else:
        assert recorded is not None
        result = LoopResult(name=call.tool, success=True, output=recorded.output, call_id=call.id, arguments=arguments)
    return CallEnd(result=result, has_changed=end.changed is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """A call of an agent: the execution that was started for it, or why there is none."""

    call: ToolCall
    child: Child | Exception

    @classmethod
    def of(cls, run: Run, call: ToolCall, delegate: Delegate) -> "_Start":
        child: Child | Exception
        try:
            child = run.spawn(delegate.agent, delegate.input_of(call.arguments), name=delegate.name)
        except (SpawnTooDeep, InvalidRecord) as error:
            child = error
        return cls(call=call, child=child)


def _gather(run: Run, started: list[_Start]) -> list[CallEnd]:
    children = [start.child for start in started if isinstance(start.child, Child)]
    outputs = iter(run.gather(*children, return_exceptions=True) if children else ())
    ends: list[CallEnd] = []
    for start in started:
        call, end = start.call, next(outputs) if isinstance(start.child, Child) else start.child
        if isinstance(end, ChildFailed | SpawnTooDeep | InvalidRecord):
            result = LoopResult.of_failure(call.tool, end, call_id=call.id, arguments=call.arguments)
        elif isinstance(end, Exception):
            raise end
        else:
            result = LoopResult(name=call.tool, success=True, output=end, call_id=call.id, arguments=call.arguments)
        ends.append(CallEnd(result=result))
    return ends
