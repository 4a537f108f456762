"""The record of an execution, as `agents show ID --json` prints it, read back."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pydantic

from agent_statestore.records import AgentContext
from celery_agents.define import types

_CONTEXT: Final = pydantic.TypeAdapter(AgentContext)


def context_of(recorded: AgentContext | Mapping[str, Any] | str) -> AgentContext:
    """The context of a recorded execution: as such, as the JSON text that was exported, or what that decodes to.

    Raises `ValueError` for a text that is not such a document, or one from which steps were left out.
    """
    context = recorded if isinstance(recorded, AgentContext) else _decoded(recorded)
    if len(context.steps) != context.step_count:
        raise ValueError(
            f"execution {context.execution_id} has {context.step_count} steps, and {len(context.steps)} are here: "
            "export it whole (agents show ID --json, without --steps-limit)"
        )
    return context


def _decoded(recorded: Mapping[str, Any] | str) -> AgentContext:
    document = json.loads(recorded) if isinstance(recorded, str) else recorded
    try:
        return _CONTEXT.validate_python(document)
    except pydantic.ValidationError as error:
        raise ValueError(f"not the record of an execution: {'; '.join(types.problems(error))}") from error
