"""JSON values and envelopes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_statestore import envelope
from agent_statestore.envelope import dump, load, seal, unseal
from agent_statestore.errors import FormatTooNew, NotSerialisable, ValueTooLarge

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(json_values)
def test_every_json_value_comes_back(value: object) -> None:
    assert repr(load(dump(value, "input"))) == repr(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), b"x", {1}, "\ud800", {"a": [math.nan]}])
def test_what_json_cannot_carry_is_refused_by_the_name_of_its_field(value: object) -> None:
    with pytest.raises(NotSerialisable, match="memory"):
        dump(value, "memory")


def test_the_limit_is_inclusive_and_counts_bytes_of_utf_8() -> None:
    assert dump("é", "input", 4) == '"é"'
    with pytest.raises(ValueTooLarge) as refused:
        dump("é", "input", 3)
    assert (refused.value.field, refused.value.size_bytes, refused.value.limit_bytes) == ("input", 4, 3)


def test_the_text_is_compact_and_keeps_its_characters() -> None:
    assert dump({"a": [1, "é"]}, "input") == '{"a":[1,"é"]}'


def test_an_envelope_carries_its_format_and_leaves_out_what_is_none() -> None:
    text = seal("fact", {"a": 1, "b": None, "c": False}, "fact")
    assert json.loads(text) == {"v": envelope.LOWEST, "a": 1, "c": False}
    assert unseal(text, "fact") == json.loads(text)


def test_a_newer_envelope_is_refused() -> None:
    with pytest.raises(FormatTooNew, match="upgrade"):
        unseal(json.dumps({"v": envelope.FORMAT + 1}), "step")


def test_an_older_envelope_is_migrated_format_by_format(monkeypatch: pytest.MonkeyPatch) -> None:
    old = seal("fact", {"name": "a"}, "fact")
    monkeypatch.setattr(envelope, "FORMAT", envelope.FORMAT + 3)
    monkeypatch.setitem(envelope.MIGRATIONS, ("step", 1), lambda fields: {**fields, "name": fields["name"] + "b"})
    monkeypatch.setitem(envelope.MIGRATIONS, ("step", 3), lambda fields: {**fields, "name": fields["name"] + "c"})
    assert unseal(old, "step")["name"] == "abc"
    assert unseal(old, "message")["name"] == "a"
