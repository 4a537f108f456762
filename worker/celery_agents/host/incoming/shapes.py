"""What is wrong with a task's message, in one sentence.

Celery takes a message's headers and body as they come. Some shapes raise in the worker's main loop, at once or later in
a timer or a callback, and end the worker. Such a message may even be put back and end the next worker.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery.utils.time import maybe_iso8601, maybe_make_aware

from agent_statestore.plain_text import line_logger
from celery_agents.host.bell import TASK_NAME as EXECUTE

log = line_logger(__name__)

# What kombu raises for a text that is no JSON, or has its markers of types around something else.
NO_JSON: Final = (ValueError, RecursionError, TypeError, AttributeError, LookupError)

_LONGEST_SHOWN: Final = 60


def tell_of_misshapen(fault: object, message_id: object = None) -> None:
    """Write the one line about a message that was dropped."""
    said = fault if isinstance(fault, str) else f"{type(fault).__name__}: {fault}"
    log.warning("a misshapen message was dropped (id %.80r): %s", message_id, said.replace("\n", " ")[:300])


def fault_that_ends_a_worker(headers: Mapping[str, Any]) -> str | None:
    """Return what in these headers would raise later than in the handler of the message; None if nothing would.

    The worker uses the time limits in timers, and the two names as keys, when a process of the pool has accepted the
    task. What raises earlier is caught there.
    """
    for name in ("id", "task", "shadow"):
        value = headers.get(name)
        if value is not None and not _is_key(value):
            return _wrong(name, value, "a text")
    limits = headers.get("timelimit")
    if limits and not _are_limits(limits):
        return _wrong("timelimit", limits, "two numbers of seconds")
    return None


def fault_of(headers: object, properties: Mapping[str, Any], tasks: Mapping[str, Any]) -> str | None:
    """Return what in a message's headers and properties Celery's protocol 2 does not know; None if nothing."""
    if not isinstance(headers, Mapping) or "task" not in headers:
        return "it names no task in its headers"
    for name in ("task", "id"):
        value = headers.get(name)
        if not isinstance(value, str) or not value:
            return _wrong(name, value, "a text")
    if headers["task"] not in tasks:
        return f"there is no task {headers['task']!r:.{_LONGEST_SHOWN}} here"
    for kind, (names, is_right) in _KINDS.items():
        for name in names:
            value = headers.get(name)
            if value is not None and not is_right(value):
                return _wrong(name, value, kind)
    for name in ("correlation_id", "reply_to"):
        value = properties.get(name)
        if value is not None and not isinstance(value, str):
            return _wrong(name, value, "a text")
    return None


def fault_of_body(name: str, message_id: str, body: object, task: Any) -> str | None:
    """Return what is wrong with the decoded body of a message for this task; None if nothing is."""
    if not isinstance(body, list | tuple) or len(body) != 3:
        return "its body is not [args, kwargs, options]"
    args, kwargs, embedded = body
    if not isinstance(args, list | tuple):
        return _wrong("args", args, "a list")
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        return _wrong("kwargs", kwargs, "an object")
    if embedded is not None and not isinstance(embedded, Mapping):
        return _wrong("options", embedded, "an object")
    try:
        inspect.signature(task.run).bind(*args, **kwargs)
    except TypeError as error:
        return f"its arguments do not fit: {error!s:.{_LONGEST_SHOWN}}"
    if name == EXECUTE and [*args, *kwargs.values()] != [message_id]:
        return "a bell names one execution, as its id and as its argument"
    return None


def _wrong(name: str, value: object, needed: str) -> str:
    return f"{name} needs {needed}, not {value!r:.{_LONGEST_SHOWN}}"


def _is_key(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_limits(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(
            limit is None
            or (isinstance(limit, int | float) and not isinstance(limit, bool) and math.isfinite(limit) and limit >= 0)
            for limit in value
        )
    )


def _is_time(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        maybe_make_aware(maybe_iso8601(value)).astimezone().timestamp()
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        return False
    return True


# What the value of a header needs to be, if it is there at all.
_KINDS: Final[dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]]] = {
    "a text": (
        ("lang", "root_id", "parent_id", "group", "shadow", "argsrepr", "kwargsrepr", "origin", "meth", "compression"),
        _is_text,
    ),
    "a time": (("eta", "expires"), _is_time),
    "a whole number": (("retries", "replaced_task_nesting", "group_index"), _is_count),
    "two numbers of seconds": (("timelimit",), _are_limits),
    "true or false": (("ignore_result",), lambda value: isinstance(value, bool)),
    "a list": (("stamped_headers",), lambda value: isinstance(value, list | tuple)),
    "an object": (("stamps",), lambda value: isinstance(value, Mapping)),
}
