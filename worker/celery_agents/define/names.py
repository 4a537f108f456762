"""Checks of what users give by hand: names, numbers, durations, functions. Each names what is wrong, and where."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import require_name
from celery_agents.errors import RegistrationError

# Behind a step's name it counts the occurrences: `search#2`.
MARK: Final = "#"

# Of agents, tools and events. Steps are named after them, with a word before and an occurrence behind, and the key of a
# step has at most 255 characters.
LONGEST_NAME: Final = 190
LONGEST_STEP_NAME: Final = 200
# A step that belongs to another one (the end of a child, say) is named after the key of that.
LONGEST_DERIVED_NAME: Final = 230


def check_registered_name(name: Any) -> None:
    """Raises `RegistrationError` for what cannot be the name of an agent or a tool, as no step could be named so."""
    reason = _no_name(name)
    if reason is not None:
        raise RegistrationError(_shown(name), f"not a name for an agent or a tool: {reason}")


def check_event_name(name: Any) -> None:
    """Raises `InvalidRecord` for what cannot be the name of an event: nobody could ever wait for it."""
    reason = _no_name(name)
    if reason is not None:
        raise InvalidRecord(f"event {_shown(name)}", f"not a name for an event: {reason}")


def check_step_name(name: Any, longest: int = LONGEST_STEP_NAME) -> None:
    """Raises `InvalidRecord` for what cannot be the name of a step: of a question, a sleep or a child, too."""
    reason = _no_name(name, longest)
    if reason is not None:
        raise InvalidRecord(f"step {_shown(name)}", f"not a name for a step: {reason}")


def _no_name(name: Any, longest: int = LONGEST_NAME) -> str | None:
    if not isinstance(name, str) or not 0 < len(name) <= longest or MARK in name:
        return f"needs a text of 1 to {longest} characters without {MARK!r}"
    try:
        require_name("name", name)
    except InvalidRecord as error:
        return error.reason
    return None


def _shown(name: Any) -> str:
    text = ascii(name)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_count(owner: str, field: str, value: Any, least: int) -> None:
    """Raises `RegistrationError` for what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RegistrationError(owner, f"{field} needs a number of at least {least}, not {value!r:.80}")


def check_amount(owner: str, field: str, value: Any) -> None:
    """Raises `RegistrationError` for what is no positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise RegistrationError(owner, f"{field} needs a positive number, not {value!r:.80}")


def check_duration(owner: str, field: str, value: Any) -> None:
    """Raises `RegistrationError` for what is no positive `timedelta`."""
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise RegistrationError(owner, f"{field} needs a positive duration, a timedelta, not {value!r:.80}")


def check_decorated(decorator: str, function: Any) -> None:
    """Raises `RegistrationError` for what a decorator is put upon and cannot be called: a name, most often."""
    if not callable(function):
        raise RegistrationError(
            f"@{decorator}", f"stands before a function, and takes options by name (name=...), not {function!r:.80}"
        )


def check_function(owner: str, value: Any) -> Callable[..., Any]:
    """The value, if it can be called. Raises `TypeError` for anything else, such as a call's result."""
    if not callable(value):
        raise TypeError(
            f"{owner} needs a function and, behind it, its arguments, not {value!r:.80}"
            + (": give the function, without calling it" if hasattr(value, "__await__") else "")
        )
    return value  # type: ignore[no-any-return]
