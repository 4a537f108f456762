"""Values of generated types: each comes back equal and of its type, or is refused, and none is changed silently."""

import datetime as dt
import enum
import json
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

import pydantic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from agent_statestore.envelope import dump
from celery_agents.define import types
from celery_agents.errors import InvalidResult, RegistrationError


@dataclass
class One:
    the_reason: str


@dataclass
class Two:
    the_reason: str


@dataclass
class TwoAndMore(Two):
    rest: Any = None


class Base(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=to_camel, populate_by_name=True)

    some_name: int = 0


class Derived(Base):
    other_name: One | Two = One("")


class Shade(enum.StrEnum):
    LIGHT = "light"
    DARK = "dark"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(["1", "light", "2026-01-01"])
CLASSES = {
    One: st.builds(One, TEXT),
    Two: st.builds(Two, TEXT) | st.builds(TwoAndMore, TEXT, st.none() | st.integers()),
    Base: st.builds(Base, some_name=st.integers())
    | st.builds(Derived, some_name=st.integers(), other_name=st.builds(One, TEXT) | st.builds(Two, TEXT)),
}
KEYS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(-2, 2),
    bool: st.booleans(),
    UUID: st.uuids(),
    dt.date: st.dates(),
    Shade: st.sampled_from(Shade),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False, places=2),
}
LEAVES = {
    **KEYS,
    **CLASSES,
    None: st.none(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bytes: st.binary(max_size=3),
    dt.datetime: st.datetimes(timezones=st.just(dt.UTC)),
    dt.timedelta: st.timedeltas(dt.timedelta(-9), dt.timedelta(9)),
}
Typed = tuple[Any, st.SearchStrategy[Any]]


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """A container of something, or a union of some things."""
    keys = st.sampled_from(list(KEYS.items())) | st.just((str | int, TEXT | st.integers(-2, 2)))
    return st.one_of(
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),
        inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(lambda pair: (tuple[pair[0][0], pair[1][0]], st.tuples(pair[0][1], pair[1][1]))),
        st.tuples(keys, inner).map(
            lambda pair: (dict[pair[0][0], pair[1][0]], st.dictionaries(pair[0][1], pair[1][1], max_size=3))
        ),
        keys.map(lambda one: (set[one[0]], st.sets(one[1], max_size=3))),
        st.lists(inner, min_size=2, max_size=3).map(
            lambda some: (reduce(or_, (one[0] for one in some), type(None)), st.one_of([one[1] for one in some]))
        ),
    )


TYPED = st.recursive(st.sampled_from(list(LEAVES.items())), containers, max_leaves=4)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    annotation, values = draw(TYPED)
    return annotation, draw(values)


def alike(one: Any, other: Any) -> bool:
    """Compare types as well, in another way than the product does."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            alike(*pair) for pair in zip(list(one.items()), list(other.items()), strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(alike(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, set):
        return one == other and {(type(member), member) for member in one} == {
            (type(member), member) for member in other
        }
    if isinstance(one, pydantic.BaseModel):
        return alike(dict(one), dict(other))
    if is_dataclass(one):
        return all(alike(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return bool(one == other)


def is_refusable(annotation: Any, value: Any) -> bool:
    """What may be refused: bytes that are no UTF-8, and keys and members that JSON cannot tell apart."""
    text = repr(annotation)
    return "bytes" in text or "dict[" in text or "set[" in text


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(typed_values())
def test_a_value_of_any_type_comes_back_as_it_was_or_is_refused(case: tuple[Any, Any]) -> None:
    annotation, value = case
    try:
        adapter = types.adapter_for(annotation, "generated")
        back, output = types.round_trip(adapter, "generated", value)
    except RegistrationError:
        return
    except InvalidResult:
        assert is_refusable(annotation, value), (annotation, value)
        return
    stored = json.loads(dump(output, "generated"))
    assert alike(back, value), (annotation, value, output)
    assert alike(types.from_record(adapter, stored, "generated"), value), (annotation, value, output)
