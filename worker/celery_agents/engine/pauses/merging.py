"""Waits of several steps for one and the same: a pause holds one wait of a kind and key."""

from collections.abc import Iterable
from dataclasses import replace

from agent_statestore.records import JSONValue, Wait, WaitKind
from celery_agents.engine.journal.paused_on import DURING, STEPS, interrupted_by
from celery_agents.engine.steps.scope import Opened


def merged(opened: Iterable[Opened]) -> tuple[Wait, ...]:
    """Return the waits to be stored, each kind and key once, in the order given."""
    found: dict[tuple[WaitKind, str], list[Opened]] = {}
    for one in opened:
        found.setdefault((one.wait.kind, one.wait.key), []).append(one)
    return tuple(each[0].wait if len(each) == 1 else _as_one(each) for each in found.values())


def _as_one(opened: list[Opened]) -> Wait:
    """Return the wait that stands for several. It looks for the first of them, and each keeps since when it waits."""
    waits = [one.wait for one in opened]
    first = waits[0]
    moments = [wait.wake_at for wait in waits if wait.wake_at is not None]
    is_typed_alike = all((wait.schema, wait.answer_type) == (first.schema, first.answer_type) for wait in waits)
    return replace(
        first,
        prompt=_prompt(opened),
        wake_at=min(moments, default=None),
        # What one of them refuses may be what another one waits for.
        schema=first.schema if is_typed_alike else None,
        answer_type=first.answer_type if is_typed_alike else None,
    )


def _prompt(opened: list[Opened]) -> JSONValue:
    prompts = [one.wait.prompt for one in opened if isinstance(one.wait.prompt, dict)]
    kept: dict[str, JSONValue] = dict(prompts[0]) if prompts else {}
    if opened[0].wait.kind is WaitKind.INPUT:  # the question of a limit, that all of them came to
        during = {str(one): one for prompt in prompts for one in interrupted_by(prompt)}
        return kept | {DURING: list(during.values())}
    return kept | {STEPS: {one.step: one.wait.asked_at.isoformat() for one in opened}}
