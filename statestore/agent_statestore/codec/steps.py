"""Conversion of steps to stored text and back."""

from collections.abc import Iterable
from dataclasses import dataclass, field, make_dataclass
from dataclasses import fields as fields_of
from datetime import timedelta
from typing import Any, Final

from agent_statestore.clock import duration_us, from_us, to_us
from agent_statestore.codec.failures import ERROR_ROOM_BYTES, error_fields, error_of
from agent_statestore.envelope import Fields, present, reading, seal, unseal
from agent_statestore.records import Action, AgentStep, Result, StepChanges

# The engine records no intent for these actions, so that their steps are new ones. Stores may count on that, as long as
# a writer that did record an intent gets its result recorded, too.
WITHOUT_INTENT: Final = frozenset({"step"})


# A frozen record sets each of its fields with `object.__setattr__`, which takes three times as long. A step that is
# read is made as an instance of a class with the same slots, which is not frozen, and then becomes a step.
_Draft: Any = make_dataclass(
    "_Draft", [(one.name, Any) for one in fields_of(AgentStep)], eq=False, kw_only=True, slots=True
)

# Most steps have this action, of which one serves for all.
_PLAIN: Final = Action(kind="step")
_PLAIN_FIELDS: Final = {"kind": "step"}


# Not frozen, as one is made for every step, and a frozen one takes several times as long.
@dataclass(slots=True)
class EncodedStep:
    """One step as stored: its number, journal key, envelope, and whether it has a result.

    `kind` is that of its action; it is known for a step that will be written.
    """

    number: int
    name: str
    text: str
    is_done: bool
    kind: str | None = field(default=None, compare=False)


def encode_step(step: AgentStep, max_bytes: int) -> EncodedStep:
    """Return a step as stored."""
    action, result, changes = step.action, step.result, step.changes
    does: Fields = {"kind": action.kind}
    if action.tool is not None or action.input is not None or action.thought is not None or action.title is not None:
        does = present(
            {
                "kind": action.kind,
                "tool": action.tool,
                "input": action.input,
                "thought": action.thought,
                "title": action.title,
            }
        )
    did: Fields | None = None
    if result is not None:
        did = {"ok": result.success}
        if result.output is not None:
            did["output"] = result.output
    text = seal(
        "step",
        {
            "n": step.step_number,
            "name": step.name,
            "action": does,
            "result": did,
            "error": None if result is None or result.error is None else error_fields(result.error),
            "attempt": step.attempt,
            "tries": None if step.tries == 1 else step.tries,
            "in_flight": step.in_flight or None,
            "round": None if step.round == 1 else step.round,
            "refused": step.refused,
            "wrote": None if step.said is None or step.remembered is None else [step.said, step.remembered],
            "at": to_us(step.timestamp),
            "took": duration_us(step.duration),
            "spent": dict(step.spent) or None,
            "within": list(step.within) or None,
            "changes": None
            if changes is None
            else {
                "memory": dict(changes.memory),
                "forgotten": list(changes.forgotten),
                "messages": changes.messages,
                "facts": changes.facts,
            },
        },
        f"step {step.name!r}",
        max_bytes if result is None or result.success else max_bytes + ERROR_ROOM_BYTES,
    )
    return EncodedStep(step.step_number, step.name, text, result is not None, action.kind)


def decode_step(text: str | bytes) -> AgentStep:
    """Return a stored step."""
    fields = unseal(text, "step")
    action = fields["action"]
    result, error, changes = fields.get("result"), fields.get("error"), fields.get("changes")
    said, remembered = fields.get("wrote", (None, None))
    step = _Draft(
        step_number=fields["n"],
        name=fields["name"],
        # By name: what a later version writes beside this says nothing about what the step did.
        action=_PLAIN
        if action == _PLAIN_FIELDS
        else Action(
            kind=action["kind"],
            tool=action.get("tool"),
            input=action.get("input"),
            thought=action.get("thought"),
            title=action.get("title"),
        ),
        result=None
        if result is None
        else Result(
            success=result["ok"],
            output=result.get("output"),
            error=None if error is None else error_of(error),
        ),
        attempt=fields["attempt"],
        tries=fields.get("tries", 1),
        in_flight=fields.get("in_flight", False),
        round=fields.get("round", 1),
        refused=fields.get("refused"),
        said=said,
        remembered=remembered,
        spent=fields.get("spent", {}),
        within=tuple(fields.get("within", ())),
        timestamp=from_us(fields["at"]),
        duration=timedelta(0, 0, fields["took"]),
        changes=None
        if changes is None
        else StepChanges(
            memory=changes["memory"],
            forgotten=tuple(changes["forgotten"]),
            messages=changes["messages"],
            facts=changes["facts"],
        ),
    )
    step.__class__ = AgentStep
    step.__post_init__()
    read: AgentStep = step
    return read


def decode_steps(execution_id: str, texts: Iterable[str | bytes]) -> tuple[AgentStep, ...]:
    """Return the stored steps of an execution. Raise `FormatTooNew` or `ExecutionUnreadable`."""
    return reading(execution_id, "steps", lambda: tuple([decode_step(text) for text in texts]))
