"""What `make test` has of the combinations of brokers, stores and pools: each of them at least once, and few."""

import pytest

from tests.crash.scene import CELLS, Cell, spread


@pytest.mark.parametrize(
    "cells",
    [
        CELLS,
        [cell for cell in CELLS if cell.broker == "embedded"],
        [cell for cell in CELLS if cell.pool == "prefork"],
        CELLS[:1],
    ],
    ids=["all", "embedded", "prefork", "one"],
)
def test_each_broker_store_and_pool_runs_on_every_commit(cells: list[Cell]) -> None:
    parameters = spread(cells)
    assert [parameter.values for parameter in parameters] == [(cell,) for cell in cells], "make test-all has them all"
    chosen = [parameter.values[0] for parameter in parameters if not parameter.marks]
    assert {part for cell in chosen for part in cell.parts} == {part for cell in cells for part in cell.parts}
    assert len(chosen) == len({cell.store for cell in cells}), "a store is there twice"
    assert all(mark.name == "full" for parameter in parameters for mark in parameter.marks)


@pytest.mark.parametrize("store", sorted({cell.store for cell in CELLS}))
def test_two_cells_have_each_broker_each_pool_and_one_store(store: str) -> None:
    chosen = [parameter.values[0] for parameter in spread(CELLS, stores=[store]) if not parameter.marks]
    assert len(chosen) == 2
    assert {part for cell in chosen for part in cell.parts} >= {
        *(("broker", broker) for broker in ("embedded", "redis")),
        *(("pool", pool) for pool in ("prefork", "threads")),
        ("store", store),
    }
