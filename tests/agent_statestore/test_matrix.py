"""A matrix in one test is as telling as one test for each of its cells."""

import inspect

import pytest

from agent_statestore.testing.contract import contents, fencing, transitions
from agent_statestore.testing.kit.matrix import cells

ROWS = {"one": 1, "two": 2}
COLUMNS = {"ten": 10, "hundred": 100}


def test_every_cell_runs_on_the_same_fixtures() -> None:
    seen: list[int] = []

    @cells(row=ROWS, column=COLUMNS)
    def test(seen: list[int], row: int, column: int) -> None:
        seen.append(row * column)

    test(seen=seen)
    assert seen == [10, 100, 20, 200]
    assert list(inspect.signature(test).parameters) == ["seen"]


def test_the_cells_that_failed_are_named_and_the_others_still_run() -> None:
    seen: list[int] = []

    @cells(row=ROWS, column=COLUMNS)
    def test(row: int, column: int) -> None:
        seen.append(row * column)
        assert column != 10, "ten is wrong"
        if row == 2:
            raise ValueError(row)

    with pytest.raises(ExceptionGroup) as failed:
        test()
    assert failed.value.message == "3 of 4 cells failed: one / ten; two / ten; two / hundred"
    assert [str(error).partition("\n")[0] for error in failed.value.exceptions] == ["ten is wrong"] * 2 + ["2"]
    assert failed.value.exceptions[2].__notes__ == ["in the cell two / hundred"]
    assert len(seen) == 4


def test_a_cell_in_which_nothing_was_refused_has_failed() -> None:
    @cells(row=ROWS)
    def test(row: int) -> None:
        with pytest.raises(KeyError):
            {1: "one"}[row]

    with pytest.raises(BaseExceptionGroup, match="1 of 2 cells failed: one"):
        test()


@pytest.mark.parametrize(
    "ending", [pytest.fail.Exception("Timeout (>180.0s)"), pytest.skip.Exception("no"), KeyboardInterrupt()], ids=repr
)
def test_what_ends_a_test_ends_the_matrix_and_its_cell_is_named(ending: BaseException) -> None:
    seen: list[int] = []

    @cells(row=ROWS)
    def test(row: int) -> None:
        seen.append(row)
        raise ending

    with pytest.raises(type(ending)) as raised:
        test()
    assert seen == [1]
    assert raised.value.__notes__ == ["in the cell one"]


def test_no_cell_of_the_suite_hides_another_one() -> None:
    """Names are told apart, and the matrices have as many cells as they had as parametrised tests."""
    assert (len(fencing.WRITES), len(fencing.LOSSES), len(fencing.ENDS)) == (26, 8, 3)
    assert (len(contents.PLACES), len(contents.REFUSED)) == (12, 9)
    assert len({repr(value) for value in contents.VALUES}) == len(contents.VALUES) == 36
    assert len(transitions.STATES) == 9
