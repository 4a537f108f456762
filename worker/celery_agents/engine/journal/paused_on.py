"""What the execution was paused on before this claim, as far as the code has not gone on from it yet.

The store shows these waits until a write clears them, and takes answers to each of them meanwhile. Where there are
several, the end of one must not close the others: they stay until the code has gone on from all of them.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from agent_statestore.records import AgentStep, JSONValue, Wait, WaitKind

# In the prompt of a limit's question: the waits that it interrupted. In that of a wait for an event or a child that
# several steps wait for: since when each does.
DURING: Final = "during"
STEPS: Final = "steps"

_OF_STEPS: Final = (WaitKind.EVENT, WaitKind.CHILD)


class PausedOn:
    """The waits that the claim found. `recorded` are the steps that it found."""

    def __init__(self, waits: Iterable[Wait], recorded: Iterable[AgentStep]) -> None:
        # Tasks of an async agent give up on the event loop, which waits for no other lock.
        self._lock = threading.Lock()
        self._waits = list(waits)
        self._is_one = len(self._waits) == 1
        if not self._is_one and self._waits:
            self.leave(recorded)  # a death came between the record of an end and the next pause

    def __iter__(self) -> Iterator[Wait]:
        return iter(tuple(self._waits))

    @property
    def is_left(self) -> bool:
        """Whether the code has gone on from all of them."""
        return not self._waits

    def find(self, kind: WaitKind, key: str) -> Wait | None:
        """Return the wait of this kind and key."""
        return next((wait for wait in self._waits if (wait.kind, wait.key) == (kind, key)), None)

    def since(self, kind: WaitKind, key: str, step: str) -> datetime | None:
        """Return when the wait of this step began, or None if the execution was not paused on it."""
        found = self.find(kind, key)
        if found is not None:
            moments = _moments_of_steps(found)
            if moments is None:
                return found.asked_at
            return datetime.fromisoformat(moments[step]) if step in moments else None
        for wait in self._waits:
            for one in interrupted_by(wait.prompt):
                if one.get("step") == step or (one.get("kind"), one.get("key")) == (kind.value, key):
                    return datetime.fromisoformat(one["since"])
        return None

    def interrupted(self, kind: WaitKind, key: str, step: str) -> list[dict[str, JSONValue]]:
        """Return what the question of a limit keeps of all waits but this one, which it interrupts as well."""
        kept: list[dict[str, JSONValue]] = []
        for wait in self._waits:
            moments = _moments_of_steps(wait)
            if interrupted := interrupted_by(wait.prompt):
                kept += interrupted
            elif moments is not None:
                kept += [{"step": name, "since": since} for name, since in moments.items()]
            else:
                kept.append({"kind": wait.kind.value, "key": wait.key, "since": wait.asked_at.isoformat()})
        own = {("step", step), (kind.value, key)}
        return [
            one for one in kept if not own & {("step", one.get("step", "")), (one.get("kind", ""), one.get("key", ""))}
        ]

    def leave(self, steps: Iterable[AgentStep]) -> None:
        """The code goes on from what these steps waited for. From a wait that was alone, it does with any step."""
        with self._lock:
            if self._is_one:
                self._waits.clear()
            if not self._waits:
                return
            for step in steps:
                if step.result is not None:
                    self._waits = [left for wait in self._waits if (left := _left_of(wait, step)) is not None]

    def forget(self, kind: WaitKind, key: str, step: str) -> None:
        """This step does not wait any more, or begins to wait anew."""
        with self._lock:
            self._waits = [
                left
                for wait in self._waits
                if (left := _without(wait, step) if (wait.kind, wait.key) == (kind, key) else wait) is not None
            ]


NOWHERE: Final = PausedOn((), ())


def interrupted_by(prompt: JSONValue) -> list[dict[str, Any]]:
    """Return the waits that the question of a limit with this prompt, or recorded input, has interrupted."""
    if not isinstance(prompt, dict) or "limit" not in prompt:
        return []
    during = prompt.get(DURING)
    found = during if isinstance(during, list) else [during]
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("since"), str)]


def _moments_of_steps(wait: Wait) -> dict[str, str] | None:
    """Return since when each of the steps waits, if several wait for the same."""
    if wait.kind not in _OF_STEPS or not isinstance(wait.prompt, dict):
        return None
    return wait.prompt.get(STEPS)


def _left_of(wait: Wait, step: AgentStep) -> Wait | None:
    """Return what is left of a wait by the end of a step: nothing, if it was that step's."""
    action, prompt = step.action, wait.prompt if isinstance(wait.prompt, dict) else {}
    if wait.kind not in _OF_STEPS:
        asks_for_it = wait.kind is WaitKind.INPUT and wait.key.startswith(f"{step.name} interrupted ")
        return None if wait.key == step.name or asks_for_it else wait
    moments = _moments_of_steps(wait)
    if moments is not None:
        return _without(wait, step.name)
    if action.kind == "job":
        return None if prompt.get("job") == step.name else wait
    if (action.kind, action.input) != (wait.kind.value, wait.key):
        return wait
    # An event of this name may have been waited for before, too.
    return wait if wait.kind is WaitKind.EVENT and step.timestamp != wait.asked_at else None


def _without(wait: Wait, step: str) -> Wait | None:
    """Return what is left of a wait that this step was in."""
    moments = {name: since for name, since in (_moments_of_steps(wait) or {}).items() if name != step}
    return replace(wait, prompt={**wait.prompt, STEPS: moments}) if moments else None
