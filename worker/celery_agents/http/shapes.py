"""The shapes of replies: types that mypy holds the code to, and of which the OpenAPI document is made."""

from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from agent_statestore.records import JSONValue

_closed = with_config(ConfigDict(extra="forbid"))


@_closed
class ErrorView(TypedDict):
    """Why an execution failed."""

    type: str
    message: str


@_closed
class WaitView(TypedDict):
    """One thing that an execution waits for. `kind` is input, approval, event, timer, child and others."""

    kind: str
    key: str
    since: str | None
    until: str | None
    refused: str | None


@_closed
class QuestionView(TypedDict):
    """A question. `refused` says why the answer of the round before had no use."""

    key: str
    round: int
    refused: str | None
    prompt: JSONValue
    schema: dict[str, Any] | None


@_closed
class ApprovalView(TypedDict):
    """A call that waits to be approved. `schema` is that of its arguments."""

    key: str
    round: int
    refused: str | None
    tool: str
    description: str | None
    arguments: JSONValue
    digest: str
    schema: dict[str, Any] | None


@_closed
class ExecutionView(TypedDict):
    """An execution without its contents: no input, output, steps, memory, metadata."""

    execution_id: str
    agent_id: str
    session_id: str | None
    user_id: str | None
    parent_execution_id: str | None
    state: str
    unreadable: str | None
    is_over: bool
    cancel_requested: bool
    step_count: int
    attempt: int
    created_at: str | None
    updated_at: str | None
    ended_at: str | None
    error: ErrorView | None
    waits_for: WaitView | None
    question: QuestionView | None
    approval: ApprovalView | None
    waits: list[WaitView]
    questions: list[QuestionView]
    approvals: list[ApprovalView]


@_closed
class ExecutionsPage(TypedDict):
    """Executions. A page may have fewer than were asked for, also none: the end is where `next_cursor` is null."""

    items: list[ExecutionView]
    next_cursor: str | None


@_closed
class ContentsView(TypedDict):
    """What an execution was given, and what came of it."""

    execution_id: str
    state: str
    is_over: bool
    input: JSONValue
    output: JSONValue
    error: ErrorView | None
    metadata: dict[str, Any]


@_closed
class ResultView(TypedDict):
    """How a step ended."""

    success: bool
    output: JSONValue
    error: ErrorView | None


@_closed
class StepView(TypedDict):
    """A step. `result` is null while it is only begun; `duration` is in seconds."""

    step_number: int
    name: str
    kind: str
    tool: str | None
    title: str | None
    thought: str | None
    input: JSONValue
    result: ResultView | None
    attempt: int
    tries: int
    at: str | None
    duration: float
    spent: dict[str, float]
    within: list[str]


@_closed
class StepsPage(TypedDict):
    """Steps in order. `next_after` is the `after` of the next page, or null."""

    items: list[StepView]
    next_after: int | None


@_closed
class SpentStepView(TypedDict):
    """What one step has spent."""

    step_number: int
    name: str
    kind: str
    spent: dict[str, float]


@_closed
class SpentView(TypedDict):
    """What an execution has spent, in all and by those steps that have spent anything."""

    spent: dict[str, float]
    steps: list[SpentStepView]


@_closed
class EventView(TypedDict):
    """One event of an execution's stream. `number` is its cursor; it is null for a last word that is not stored."""

    number: int | None
    kind: str
    at: str | None
    attempt: int
    step: str
    tried: int
    data: dict[str, Any]


@_closed
class EventsPage(TypedDict):
    """Events in order. `cursor` is the `after` of the next request; nothing comes any more if it `is_over`."""

    items: list[EventView]
    cursor: int
    is_over: bool


@_closed
class DoneView(TypedDict):
    """What came of a decision, an event or a cancel."""

    execution_id: str
    result: str


@_closed
class DecisionView(TypedDict):
    """What came of one of several decisions: a result, or a problem as if it had been sent alone."""

    result: str | None
    problem: dict[str, Any] | None


@_closed
class DecisionsView(TypedDict):
    """What came of several decisions, in their order."""

    execution_id: str
    results: list[DecisionView]
