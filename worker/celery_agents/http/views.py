"""Executions, steps and events as JSON for people and their pages."""

from collections.abc import Mapping
from typing import cast

from agent_statestore.records import AgentContext, AgentStep, ErrorInfo, ExecutionSummary, Wait
from agent_statestore.streams import StreamEvent
from celery_agents.engine.journal.spending import spent_in
from celery_agents.http.shapes import (
    ApprovalView,
    ContentsView,
    ErrorView,
    EventView,
    ExecutionView,
    QuestionView,
    SpentView,
    StepView,
    WaitView,
)
from celery_agents.lifecycle.showing import approval_shown, moment_shown, question_shown, wait_shown
from celery_agents.lifecycle.signals import approval_of, approvals_of, question_of, questions_of


def view(summary: ExecutionSummary) -> ExecutionView:
    """Return an execution for people and their pages: its state and what it waits for, but none of its contents."""
    waiting, question, approval = summary.waiting, question_of(summary), approval_of(summary)
    return {
        "execution_id": summary.execution_id,
        "agent_id": summary.agent_id,
        "session_id": summary.session_id,
        "user_id": summary.user_id,
        "parent_execution_id": summary.parent_execution_id,
        "state": summary.state.value,
        "unreadable": summary.unreadable,
        "is_over": summary.state.is_over,
        "cancel_requested": summary.cancel_requested,
        "step_count": summary.step_count,
        "attempt": summary.attempt,
        "created_at": moment_shown(summary.created_at),
        "updated_at": moment_shown(summary.updated_at),
        "ended_at": moment_shown(summary.ended_at),
        "error": _error(summary.error),
        "waits_for": None if waiting is None else _waits_for(waiting),
        "question": None if question is None else _question(question),
        "approval": None if approval is None else _approval(approval),
        "waits": [_waits_for(wait) for wait in summary.waits],
        "questions": [_question(wait) for wait in questions_of(summary)],
        "approvals": [_approval(wait) for wait in approvals_of(summary)],
    }


def view_of_contents(context: AgentContext) -> ContentsView:
    """Return what an execution was given, and what came of it."""
    return {
        "execution_id": context.execution_id,
        "state": context.state.value,
        "is_over": context.state.is_over,
        "input": context.input,
        "output": context.output,
        "error": _error(context.error),
        "metadata": dict(context.metadata),
    }


def view_of_step(step: AgentStep) -> StepView:
    """Return a step with its input and output."""
    result = step.result
    return {
        "step_number": step.step_number,
        "name": step.name,
        "kind": step.action.kind,
        "tool": step.action.tool,
        "title": step.action.title,
        "thought": step.action.thought,
        "input": step.action.input,
        "result": None
        if result is None
        else {"success": result.success, "output": result.output, "error": _error(result.error)},
        "attempt": step.attempt,
        "tries": step.tries,
        "at": moment_shown(step.timestamp),
        "duration": step.duration.total_seconds(),
        "spent": dict(step.spent),
        "within": list(step.within),
    }


def view_of_spent(context: AgentContext) -> SpentView:
    """Return what an execution has spent, in all and by those steps that have spent anything."""
    return {
        "spent": _amounts(spent_in(context)),
        "steps": [
            {
                "step_number": step.step_number,
                "name": step.name,
                "kind": step.action.kind,
                "spent": _amounts(step.spent),
            }
            for step in context.steps
            if step.spent
        ],
    }


def view_of_event(event: StreamEvent) -> EventView:
    """Return an event as it is."""
    return {
        "number": event.number,
        "kind": event.kind,
        "at": moment_shown(event.at),
        "attempt": event.attempt,
        "step": event.step,
        "tried": event.tried,
        "data": dict(event.data),
    }


def _amounts(spent: Mapping[str, float]) -> dict[str, float]:
    return {"tokens": 0, "cost": 0, **spent}


def _error(error: ErrorInfo | None) -> ErrorView | None:
    return None if error is None else {"type": error.type, "message": error.message}


def _question(asked: Wait) -> QuestionView:
    return cast(QuestionView, question_shown(asked))


def _approval(asked: Wait) -> ApprovalView:
    return cast(ApprovalView, approval_shown(asked))


def _waits_for(waiting: Wait) -> WaitView:
    return cast(WaitView, wait_shown(waiting))
