"""The faster `__init__` of records does what that of a frozen dataclass does."""

import inspect
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from agent_statestore.slots import set_through_slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    needed: int
    given: str = "given"
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.needed < 0:
            raise ValueError("needed")


@set_through_slots
@dataclass(frozen=True, slots=True, kw_only=True)
class Fast:
    needed: int
    given: str = "given"
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.needed < 0:
            raise ValueError("needed")


class Heir(Fast):
    """Has a `__dict__` besides the slots."""


def test_it_sets_what_the_other_sets() -> None:
    for given in ({"needed": 1}, {"needed": 2, "given": "else"}, {"needed": 3, "made": [4]}):
        plain, fast, heir = (kind(**given) for kind in (Plain, Fast, Heir))  # type: ignore[arg-type]
        shown = repr(plain).partition("(")[2]
        assert repr(fast) == f"Fast({shown}"
        assert repr(heir) == f"Heir({shown}"
    assert Fast(needed=1) == Fast(needed=1)
    assert replace(Fast(needed=1), given="else") == Fast(needed=1, given="else")
    assert list(inspect.signature(Fast).parameters) == list(inspect.signature(Plain).parameters)


def test_each_instance_has_its_own_default() -> None:
    assert Fast(needed=1).made is not Fast(needed=1).made


def test_it_refuses_what_the_other_refuses() -> None:
    for given in ({}, {"needed": 1, "more": 2}):
        with pytest.raises(TypeError) as of_plain:
            Plain(**given)  # type: ignore[arg-type]
        with pytest.raises(TypeError) as of_fast:
            Fast(**given)  # type: ignore[arg-type]
        assert str(of_fast.value) == str(of_plain.value).replace("Plain", "Fast")
    with pytest.raises(ValueError, match="needed"):
        Fast(needed=-1)


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Fast(needed=1).needed = 2  # type: ignore[misc]
