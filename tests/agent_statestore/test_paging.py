"""Cursors."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_statestore.errors import InvalidRecord
from agent_statestore.query import Cursor, check_limit, decode_cursor, encode_cursor


@given(st.integers(0, 2**53), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cursor_comes_back(created_us: int, execution_id: str) -> None:
    place = Cursor(created_us, execution_id)
    assert decode_cursor(encode_cursor(place)) == place


def test_a_cursor_fits_into_a_url() -> None:
    text = encode_cursor(Cursor(2**53, "\N{SLIGHTLY SMILING FACE}???>>>"))
    assert text.replace("-", "").replace("_", "").isalnum()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_other_text_is_refused_or_read_as_a_cursor(text: str) -> None:
    with contextlib.suppress(InvalidRecord):
        assert isinstance(decode_cursor(text), Cursor)


@pytest.mark.parametrize("content", ["[]", "[1]", "[1,2]", '["a","b"]', '[1,"a",2]', "{}", "null", "1", '"ab"'])
def test_an_envelope_of_something_else_is_refused(content: str) -> None:
    with pytest.raises(InvalidRecord):
        decode_cursor(base64.urlsafe_b64encode(content.encode()).decode())


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "1", None])
def test_a_limit_is_a_whole_number_of_at_least_one(limit: object) -> None:
    with pytest.raises(InvalidRecord, match="limit"):
        check_limit(limit)  # type: ignore[arg-type]
    check_limit(1)
