"""Interrupts of a graph as questions to people, and those of `HumanInTheLoopMiddleware` as approvals of calls."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import pydantic
from langgraph.types import Interrupt

from celery_agents.define import json_schema
from celery_agents.define.names import step_name
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import ApprovalDenied, ApprovalExpired
from celery_agents.integrations.langgraph.attempt import GraphAttempt
from celery_agents.integrations.langgraph.values import as_json


async def answers(
    run: AsyncRun,
    attempt: GraphAttempt,
    interrupts: Sequence[Interrupt[Any]],
    timeout: timedelta | None,
    schemas: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what people answer to the interrupts, by their ids. All are asked about at once.

    `schemas` are those of the arguments of tools, which edited ones are held against.
    """
    asked = sorted(
        (_Asked(interrupt=one, place=attempt.place(one.id), call_id=_call_id(one.value)) for one in interrupts),
        key=lambda one: (one.place, one.call_id),
    )
    calls = [one.call_id for one in asked if _is_of_a_call(one.interrupt.value) or _is_of_a_turn(one.interrupt.value)]
    is_clear = len(set(calls)) == len(calls)
    given = await asyncio.gather(
        *(_answer(run, one, "" if is_clear else f"{one.place}/", timeout, schemas) for one in asked)
    )
    return {one.interrupt.id: answer for one, answer in zip(asked, given, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An interrupt, with what it is called by on each attempt alike: its node, and the call it is about."""

    interrupt: Interrupt[Any]
    place: str
    call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Action:
    """A call that a person decides about. `allowed` are LangChain's decisions; `schema` that of the arguments."""

    tool: str
    arguments: Mapping[str, Any]
    description: str
    allowed: frozenset[str]
    schema: Mapping[str, Any] | None = None


async def _answer(
    run: AsyncRun, one: _Asked, where: str, timeout: timedelta | None, known: Mapping[str, Mapping[str, Any]]
) -> Any:
    value, schema = one.interrupt.value, one.interrupt.response_schema
    if _is_of_a_turn(value):
        actions = list(_actions(value, known))
        if all("approve" in action.allowed for action in actions):
            decided = await asyncio.gather(
                *(_decide(run, f"{where}{each.tool} {at}", each, timeout) for at, each in enumerate(actions))
            )
            return {"decisions": list(decided)}
    if _is_of_a_call(value) and schema is not None:
        schemas = dict(_decisions(schema))
        action = _Action(
            tool=value["name"],
            arguments=value["args"],
            description=value["description"],
            allowed=frozenset(schemas),
            schema=_of_arguments(schema, schemas.get("edit")),
        )
        if "approve" in action.allowed:
            return await _decide(run, f"{where}{action.tool} {one.call_id}", action, timeout)
    expected = Any if schema is None else _fitting(schema)
    return await run.ask(as_json(value), schema=expected, timeout=timeout, name=step_name(f"ask {one.place}"))


def _is_of_a_turn(value: Any) -> bool:
    """Return whether this is what `HumanInTheLoopMiddleware` asks about all calls of a turn."""
    return isinstance(value, Mapping) and {"action_requests", "review_configs"} <= set(value)


def _is_of_a_call(value: Any) -> bool:
    """Return whether this is what `HumanInTheLoopMiddleware(interrupt_mode="per_call")` asks about a call."""
    return isinstance(value, Mapping) and value.get("type") == "tool_approval" and "tool_call_id" in value


def _actions(value: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Iterator[_Action]:
    allowed = {config["action_name"]: frozenset(config["allowed_decisions"]) for config in value["review_configs"]}
    for action in value["action_requests"]:
        yield _Action(
            tool=action["name"],
            arguments=action["args"],
            description=action.get("description", ""),
            allowed=allowed[action["name"]],
            schema=known.get(action["name"]),
        )


async def _decide(run: AsyncRun, name: str, action: _Action, timeout: timedelta | None) -> dict[str, Any]:
    """Return a decision of LangChain's about one call."""
    arguments = as_json(action.arguments)
    may_edit = "edit" in action.allowed
    try:
        edited = await run.approve(
            action.tool,
            arguments,
            description=action.description,
            schema=action.schema if may_edit else {"const": arguments},
            timeout=timeout,
            name=step_name(f"approve {name}"),
        )
    except ApprovalDenied as denied:
        return {"type": "reject", **({"message": denied.reason} if denied.reason else {})}
    except ApprovalExpired:
        return {"type": "reject", "message": "Nobody approved this call in time."}
    if edited == arguments:
        return {"type": "approve"}
    return {"type": "edit", "edited_action": {"name": action.tool, "args": edited}}


def _call_id(value: Any) -> str:
    return str(value["tool_call_id"]) if _is_of_a_call(value) else ""


def _fitting(schema: Any) -> Any:
    """Return a type whose values fit a JSON schema."""
    wanted: dict[str, Any] = schema if isinstance(schema, dict) else pydantic.TypeAdapter(schema).json_schema()

    def check(answer: Any) -> Any:
        problems = json_schema.problems(wanted, answer, "answer")
        if problems:
            raise ValueError("; ".join(problems))
        return answer

    return Annotated[Any, pydantic.AfterValidator(check), pydantic.WithJsonSchema(wanted)]


def _decisions(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the decisions that a response schema of LangChain's allows, each with its own schema."""
    if isinstance(schema, Mapping):
        kind = schema.get("properties", {}).get("type", {})
        if isinstance(kind, Mapping) and "const" in kind:
            yield kind["const"], schema
            return
        for part in schema.values():
            yield from _decisions(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _decisions(part)


def _of_arguments(whole: Any, edit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the schema of the arguments in that of an edit."""
    definitions = whole.get("$defs", {})

    def followed(schema: Any) -> Any:
        return definitions.get(schema["$ref"].rpartition("/")[2]) if "$ref" in schema else schema

    if edit is None:
        return None
    action = followed(edit["properties"]["edited_action"])
    arguments = followed(action["properties"]["args"])
    return {**arguments, **({"$defs": definitions} if definitions else {})}
