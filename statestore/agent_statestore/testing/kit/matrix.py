"""A matrix in one test: it runs in every cell, and names the cells in which it failed."""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest

Test: TypeAlias = Callable[..., None]


def cells(**axes: Mapping[str, Any]) -> Callable[[Test], Test]:
    """Run the decorated test once for each combination of the axes' values, all of them on the same fixtures.

    An axis is an argument of the test, and maps names to values. A failing cell does not stop the others: in the end a
    group of errors names all cells that failed, and holds what each raised.

    It serves a matrix whose cells are far cheaper than the fixtures that `pytest.mark.parametrize` would make for each.
    """

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def in_every_cell(*args: Any, **fixtures: Any) -> None:
            failed: dict[str, BaseException] = {}
            combinations = list(itertools.product(*(axis.items() for axis in axes.values())))
            for combination in combinations:
                names, values = zip(*combination, strict=True)
                cell = " / ".join(names)
                try:
                    test(*args, **fixtures, **dict(zip(axes, values, strict=True)))
                except BaseException as error:
                    error.add_note(f"in the cell {cell}")
                    if not _is_fault_of_the_cell(error):
                        raise
                    failed[cell] = error
            if failed:
                told = f"{len(failed)} of {len(combinations)} cells failed: {'; '.join(failed)}"
                raise BaseExceptionGroup(told, list(failed.values()))

        # pytest brings the arguments that are not axes.
        signature = inspect.signature(test)
        fixtures = [parameter for name, parameter in signature.parameters.items() if name not in axes]
        vars(in_every_cell)["__signature__"] = signature.replace(parameters=fixtures)
        return in_every_cell

    return decorate


def _is_fault_of_the_cell(error: BaseException) -> bool:
    """Return whether the other cells may still run: not after a timeout, a skip or an interruption."""
    if isinstance(error, pytest.fail.Exception):
        return "DID NOT RAISE" in str(error)
    return isinstance(error, Exception)
