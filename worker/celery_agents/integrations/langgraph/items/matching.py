"""Which items a filter takes, and which namespaces a condition: by LangGraph's rules."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from langgraph.store.base import MatchCondition

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": lambda value, other: float(value) > float(other),
    "$gte": lambda value, other: float(value) >= float(other),
    "$lt": lambda value, other: float(value) < float(other),
    "$lte": lambda value, other: float(value) <= float(other),
}
_WILDCARD: Final = "*"


def takes(filter: Mapping[str, Any] | None, value: Mapping[str, Any]) -> bool:  # noqa: A002 - LangGraph's name for it
    """Return whether a filter takes an item's value.

    Raise `ValueError` for an operator that there is not, and `TypeError` or `ValueError` for an order of what is no
    number.
    """
    return all(_is_like(value.get(name), wanted) for name, wanted in (filter or {}).items())


def matches(condition: MatchCondition, labels: tuple[str, ...]) -> bool:
    """Return whether a namespace begins, or ends, as the condition says. Raise `ValueError` for another kind."""
    path = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise ValueError(f"Unsupported match type: {condition.match_type}")
    if len(labels) < len(path):
        return False
    compared = labels[: len(path)] if condition.match_type == "prefix" else labels[len(labels) - len(path) :]
    return all(wanted in (_WILDCARD, label) for label, wanted in zip(compared, path, strict=True))


def literal_prefix(conditions: Sequence[MatchCondition]) -> tuple[str, ...]:
    """Return labels with which all namespaces begin that match the conditions."""
    longest: tuple[str, ...] = ()
    for condition in conditions:
        if condition.match_type == "prefix":
            path = tuple(condition.path)
            until = path.index(_WILDCARD) if _WILDCARD in path else len(path)
            longest = max(longest, path[:until], key=len)
    return longest


def _is_like(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(name.startswith("$") for name in wanted):
            return all(_compare(name, value, other) for name, other in wanted.items())
        return isinstance(value, Mapping) and all(_is_like(value.get(name), each) for name, each in wanted.items())
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(_is_like(one, other) for one, other in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _compare(name: str, value: Any, other: Any) -> bool:
    compare = _OPERATORS.get(name)
    if compare is None:
        raise ValueError(f"Unsupported operator: {name}")
    return compare(value, other)
