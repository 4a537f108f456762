"""Makes the calls of one decision: approvals first, then all at once; every end of one is told to the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent_statestore.errors import InvalidRecord
from celery_agents.define.tool import Tool
from celery_agents.engine.pauses.child import Child
from celery_agents.engine.run.run import Run
from celery_agents.engine.steps.calls import Call, Place, StepOptions
from celery_agents.engine.steps.parallel import DEFAULT_LIMIT, caught, take_all
from celery_agents.engine.steps.step import ReachedStep
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
    steps = [_Step.of(run, call, tool) for call, tool in calls if isinstance(tool, Tool)]
    started = [_Start.of(run, call, tool) for call, tool in calls if isinstance(tool, Delegate)]
    ends = iter(_take(run, steps))
    outputs = iter(_gather(run, started))
    return [next(ends) if isinstance(tool, Tool) else next(outputs) for _, tool in calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A call of a tool, approved of (or refused) and not yet made."""

    call: ToolCall
    place: Place
    reached: ReachedStep | Exception

    @classmethod
    def of(cls, run: Run, call: ToolCall, tool: Tool[..., Any]) -> "_Step":
        attempt = run._attempt
        place = Place.of(attempt, Call(name=tool.name, function=tool, kwargs=call.arguments))
        return cls(call=call, place=place, reached=caught(partial(place.allowed, StepOptions()), attempt.interrupts))

    def end_of(self, end: Any) -> CallEnd:
        call, place, journal = self.call, self.place, self.place.attempt.journal
        arguments, has_changed = dict(call.arguments), False
        if isinstance(self.reached, ReachedStep) and place.approval is not None:
            allowed = self.reached.step.action.input
            if allowed != place.approval.arguments:
                arguments, has_changed = allowed, True
        recorded = journal.step(place.key).result if journal.has(place.key) else None
        if isinstance(end, Exception):
            has_failed = recorded is not None and not recorded.success
            if not has_failed and not isinstance(end, _REFUSALS):
                raise end
            result = LoopResult.of_failure(call.tool, end, call_id=call.id, arguments=arguments)
        else:
            assert recorded is not None
            result = LoopResult(
                name=call.tool, success=True, output=recorded.output, call_id=call.id, arguments=arguments
            )
        return CallEnd(result=result, has_changed=has_changed)


def _take(run: Run, steps: list[_Step]) -> list[CallEnd]:
    if len(steps) == 1 and isinstance(steps[0].reached, ReachedStep):
        # A tool that is alone may change the memory.
        return [steps[0].end_of(caught(steps[0].reached.finish, run._attempt.interrupts))]
    ends = take_all(run._attempt, [step.reached for step in steps], DEFAULT_LIMIT)
    return [step.end_of(end) for step, end in zip(steps, ends, strict=True)]


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
