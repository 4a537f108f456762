"""An execution as JSON for people and their pages: its state and what it waits for, but none of its contents."""

from collections.abc import Mapping
from datetime import UTC, datetime

from agent_statestore.records import AgentContext, ExecutionSummary, JSONValue, Wait
from celery_agents.engine.journal.spending import spent_in
from celery_agents.lifecycle.signals import approval_of, approvals_of, question_of, questions_of, shown


def view(summary: ExecutionSummary) -> dict[str, JSONValue]:
    """Return the reply to `GET /executions/{id}`. It leaves out memory, input, output, steps and metadata."""
    waiting, question, approval = summary.waiting, question_of(summary), approval_of(summary)
    error = summary.error
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
        "created_at": _moment(summary.created_at),
        "updated_at": _moment(summary.updated_at),
        "ended_at": _moment(summary.ended_at),
        "error": None if error is None else {"type": error.type, "message": error.message},
        "waits_for": None if waiting is None else _waits_for(waiting),
        "question": None if question is None else _question(question),
        "approval": None if approval is None else _approval(approval),
        "waits": [_waits_for(wait) for wait in summary.waits],
        "questions": [_question(wait) for wait in questions_of(summary)],
        "approvals": [_approval(wait) for wait in approvals_of(summary)],
    }


def view_of_spent(context: AgentContext) -> dict[str, JSONValue]:
    """Return the reply to `GET /executions/{id}/spent`: in all, and by those steps that have spent anything."""
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


def _amounts(spent: Mapping[str, float]) -> dict[str, JSONValue]:
    return {"tokens": 0, "cost": 0, **spent}


def _question(asked: Wait) -> dict[str, JSONValue]:
    schema = None if asked.schema is None else dict(asked.schema)
    return {"key": asked.key, **_round(asked), "prompt": asked.prompt, "schema": schema}


def _approval(asked: Wait) -> dict[str, JSONValue]:
    call = shown(asked)
    told = {name: call[name] for name in ("tool", "description", "arguments", "digest")}
    return {"key": asked.key, **_round(asked), **told, "schema": None if asked.schema is None else dict(asked.schema)}


def _round(asked: Wait) -> dict[str, JSONValue]:
    return {"round": asked.round, "refused": asked.refused}


def _waits_for(waiting: Wait) -> dict[str, JSONValue]:
    times = {"since": _moment(waiting.asked_at), "until": _moment(waiting.wake_at)}
    return {"kind": waiting.kind.value, "key": waiting.key, **times, "refused": waiting.refused}


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
