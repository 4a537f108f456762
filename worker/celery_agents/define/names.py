"""Checks of what users write: names, numbers, durations, functions. Each error says what is wrong, and where."""

import hashlib
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import require_name
from celery_agents.errors import RegistrationError

# It comes after a step's name and counts the occurrences: `search#2`.
MARK: Final = "#"

# The longest name of an agent, a tool or an event. The key of a step has at most 255 characters. It consists of such a
# name, with a word before it and an occurrence after it.
LONGEST_NAME: Final = 190
LONGEST_STEP_NAME: Final = 200
# A step that belongs to another step (the end of a child, say) is named after the key of that step.
LONGEST_DERIVED_NAME: Final = 230


def check_registered_name(name: Any) -> None:
    """Raise `RegistrationError` for an invalid name of an agent or a tool, after which no step could be named."""
    reason = _no_name(name)
    if reason is not None:
        raise RegistrationError(_shown(name), f"not a name for an agent or a tool: {reason}")


def check_event_name(name: Any) -> None:
    """Raise `InvalidRecord` for an invalid name of an event: nobody could ever wait for it."""
    reason = _no_name(name)
    if reason is not None:
        raise InvalidRecord(f"event {_shown(name)}", f"not a name for an event: {reason}")


def check_step_name(name: Any, longest: int = LONGEST_STEP_NAME) -> None:
    """Raise `InvalidRecord` for an invalid name of a step, which may be a question, a sleep or a child."""
    reason = _no_name(name, longest)
    if reason is not None:
        raise InvalidRecord(f"step {_shown(name)}", f"not a name for a step: {reason}")


# A letter, a digit, or what names of models and tools have between them.
_UNREADABLE: Final = re.compile(r"[^\w .,:;/()\[\]{}<>=+*@$%&!?'\"|~^-]+")
_DIGEST_CHARACTERS: Final = 10


def step_name(text: str) -> str:
    """Return a legal name of a step for any text, the same on every attempt; different texts get different names.

    That is the text itself if it is such a name, otherwise what of it can be read, and a hash of the whole. The name of
    a tool or a model, a URL, or what a framework calls its parts can so stand in the name of a step.
    """
    if not isinstance(text, str):
        raise TypeError(f"step_name takes a text, not {text!r:.80}")
    if _no_name(text) is None:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    readable = _UNREADABLE.sub("_", text)[: LONGEST_NAME - _DIGEST_CHARACTERS - 1]
    return f"{readable}-{digest}"


def name_in_group(group: str, name: str) -> str:
    """Return what a step of this name is called in the group of this key: as a path, which a user's name never is."""
    path = f"{group}{MARK}/{name}"
    if len(path) <= LONGEST_STEP_NAME:
        return path
    digest = hashlib.sha256(path.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    half = (LONGEST_STEP_NAME - _DIGEST_CHARACTERS - 3) // 2
    return f"{group[:half]}-{digest}{MARK}/{name[:half]}"


def name_within(key: str) -> str:
    """Return the key of a step as it is called in its innermost group, by what `name_in_group` made of it."""
    return key.rpartition(f"{MARK}/")[2]


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


def check_count(owner: str, field: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise `RegistrationError` for anything but a whole number of at least `least`, and at most `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RegistrationError(owner, f"{field} needs a number of at least {least}, not {value!r:.80}")
    if most is not None and value > most:
        raise RegistrationError(owner, f"{field} needs a number of at most {most}, not {value}")


def check_amount(owner: str, field: str, value: Any) -> None:
    """Raise `RegistrationError` for anything but a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise RegistrationError(owner, f"{field} needs a positive number, not {value!r:.80}")


def check_duration(owner: str, field: str, value: Any) -> None:
    """Raise `RegistrationError` for anything but a positive `timedelta`."""
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise RegistrationError(owner, f"{field} needs a positive duration, a timedelta, not {value!r:.80}")


def check_decorated(decorator: str, function: Any) -> None:
    """Raise `RegistrationError` if a decorator stands before something that cannot be called: most often a name."""
    if not callable(function):
        raise RegistrationError(
            f"@{decorator}", f"stands before a function, and takes options by name (name=...), not {function!r:.80}"
        )


def check_function(owner: str, value: Any) -> Callable[..., Any]:
    """Return the value if it can be called. Raise `TypeError` for anything else, such as a call's result."""
    if not callable(value):
        raise TypeError(
            f"{owner} needs a function and, behind it, its arguments, not {value!r:.80}"
            + (": give the function, without calling it" if hasattr(value, "__await__") else "")
        )
    return value  # type: ignore[no-any-return]
