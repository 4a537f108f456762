"""The outcome of a step in words. Knows nothing of rich."""

from agent_statestore.records import Action, AgentStep, JSONValue
from celery_agents.cli.output.text import compact, exact, one_line, short_type


def outcome_text(step: AgentStep) -> str:
    """Return how a step ended, on one line."""
    if step.result is None and step.refused is not None:
        return f"{'passed over' if step.action.kind == 'event' else 'asked again'}: {one_line(step.refused)}"
    if step.result is None:
        return "in flight, no result yet" if step.in_flight else "begun, no result yet"
    if step.result.error is not None:
        error = step.result.error
        return one_line(f"{short_type(error.type)}: {error.message}")
    output = step.result.output
    told = _told(step.action, output)
    return compact(output) if told is None else one_line(told)


def _told(action: Action, output: JSONValue) -> str | None:
    """Return as a sentence what the engine's own kinds of steps record; None if the value is the agent's."""
    match action.kind, output:
        case "limit", more:
            what = action.input.get("limit", "") if isinstance(action.input, dict) else action.input
            return f"{compact(more)} more {what}"
        case "approval", {"by": by, "reason": reason, "arguments": arguments}:
            who = decider_text(by, output.get("channel"), output.get("os_user"))
            return approved_text(who, reason, arguments)
        case "spawn", {"execution_id": execution_id, "agent_id": agent_id}:
            return f"{agent_id} {execution_id}"
        case "event", {"payload": payload}:
            return compact(payload)
        case "event", {"timed_out": True}:
            return "did not come in time"
    return None


def decider_text(by: str | None, channel: str | None, os_user: str | None) -> str:
    """Return who decided: the name that was given, and what the sending process knew unless it says the same."""
    if os_user is None or os_user == by:
        return by or ""
    return f"{by or 'somebody'} ({channel}, {os_user})"


def approved_text(by: str | None, reason: str | None, arguments: JSONValue) -> str:
    """Return "approved by ann: as agreed, with {"amount": 20}"."""
    text = "approved" + (f" by {by}" if by else "") + (f": {reason}" if reason else "")
    return text if arguments is None else f"{text}, with {exact(arguments)}"
