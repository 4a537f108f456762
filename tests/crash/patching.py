"""Putting something of a test's own in the place of something of ours, loudly: not where there is nothing any more.

A name that was moved or changed would otherwise be set beside what still runs, and a mechanism that is switched off
would go on working.
"""

import inspect
from typing import Any

_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def put(owner: Any, name: str, value: Any) -> None:
    """Replace a function, a property or a value of a class or module.

    Raises `AttributeError` if there is none, and `TypeError` if a function that takes named arguments is put in the
    place of one that takes others.
    """
    replaced = inspect.getattr_static(owner, name)
    if inspect.isfunction(replaced) and inspect.isfunction(value):
        _check_arguments(f"{owner.__name__}.{name}", replaced, value)
    setattr(owner, name, value)


def put_on_instances(owner: type, name: str, value: property) -> None:
    """Replace by a property what the constructor of a class sets on each instance."""
    if name not in inspect.unwrap(vars(owner)["__init__"]).__code__.co_names:
        raise AttributeError(f"{owner.__name__} sets no {name}")
    setattr(owner, name, value)


def _check_arguments(about: str, replaced: Any, value: Any) -> None:
    wanted, given = inspect.signature(replaced).parameters, inspect.signature(value).parameters
    takes_any = any(parameter.kind in _ANY for parameter in given.values())
    if not takes_any and list(wanted) != list(given):
        raise TypeError(f"{about} takes {', '.join(wanted)}, not {', '.join(given)}")
