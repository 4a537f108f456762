"""What the models that a framework calls say, told to the stream of the execution while they say it.

A model is called inside of a step, which records its answer whole. What it says meanwhile belongs to that step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable, ValueTooLarge
from celery_agents.define.live import LiveStream
from celery_agents.engine.run.base_run import BaseRun
from celery_agents.engine.steps.scope import run_around
from celery_agents.engine.stream.speaking import live_stream

# No id of a call is longer, and none is empty.
_LONGEST_ID: Final = 255
_LONGEST_ARGUMENTS: Final = 256 * 1024

_is_wanted: Final[ContextVar[bool | None]] = ContextVar("is_fed", default=None)


@contextmanager
def fed(is_wanted: bool | None) -> Iterator[None]:
    """Whether models that are called in this block are asked for their answers in pieces; None if nobody has said."""
    token = _is_wanted.set(is_wanted)
    try:
        yield
    finally:
        _is_wanted.reset(token)


def feed(*, may_miss_usage: bool = False) -> "Feed | None":
    """Return what the model that is called now says its pieces to.

    None where nobody could follow: outside of steps, where streams are off, and where pieces are not wanted. Where a
    model `may_miss_usage` if it answers in pieces, they have to be wanted expressly, as it would count for nothing.
    """
    run, is_wanted = run_around(), _is_wanted.get()
    if is_wanted is False or not isinstance(run, BaseRun) or run._attempt.outlet is None:
        return None
    if may_miss_usage and is_wanted is None:
        return None
    step = run._attempt.nesting.step_around
    # Of this step, also in a thread of the framework that knows nothing of it.
    return None if step is None else Feed(live_stream(run._attempt, step))


class Feed:
    """Takes what one answer of a model consists of, as it comes. It waits for nothing, and never fails a call."""

    __slots__ = ("_stream",)

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream

    def text(self, delta: Any) -> None:
        """The next piece of the text."""
        if isinstance(delta, str) and delta:
            self._stream.text(delta)

    def thinking(self, delta: Any) -> None:
        """The next piece of what the model thinks, as far as its service shows it."""
        if isinstance(delta, str) and delta:
            self._stream.thinking(delta)

    def call(self, call_id: Any, tool: Any, arguments: Any = None) -> None:
        """A call of a tool begins or goes on: with the next piece of its arguments' JSON, or with all arguments."""
        delta = arguments if isinstance(arguments, str) else _as_text(arguments)
        self._stream.tool_call(_as_id(call_id), _as_plain(tool), delta=delta)


def _as_text(arguments: Any) -> str:
    """Return arguments that came whole as JSON text; "" for none, or if they are none that could be shown."""
    if not arguments:
        return ""
    try:
        return dump(arguments, "arguments", _LONGEST_ARGUMENTS)
    except (NotSerialisable, ValueTooLarge):
        return ""  # they are recorded, or refused, with the answer


def _as_plain(text: Any) -> str:
    """Return a text that any store can keep."""
    return str(text or "").encode("utf-8", "replace").decode().replace("\0", "")


def _as_id(call_id: Any) -> str:
    return _as_plain(call_id)[:_LONGEST_ID] or "call"
