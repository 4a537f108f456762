"""Fifty deaths at random moments, for each framework: prefork and threads, on SQLite, PostgreSQL and Redis."""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from celery_agents.testing.llm import ModelServer
from tests.integrations.killing import Place, boss, check_killed, helper

DEATHS: Final = 50
_IN_ONE_EXECUTION: Final = 5
# Which pool and store, and how many of the deaths.
CELLS: Final = (
    ("prefork", "sqlite"),
    ("threads", "postgresql"),
    ("prefork", "redis"),
    ("threads", "sqlite"),
    ("prefork", "postgresql"),
)


@dataclass(slots=True)
class Figures:
    """What the deaths have cost: calls of tools in all, and those that were made again."""

    executions: int = 0
    deaths: int = 0
    calls: int = 0
    repeated_calls: int = 0
    requests: int = 0
    repeated_requests: int = 0


def run_deaths(module: str, folder: Path, urls: dict[str, str], seed: int) -> Figures:
    """Executions with deaths, until there were as many as there are to be. `urls` are those of stores by name."""
    dice, figures = random.Random(seed), Figures()
    while figures.deaths < DEATHS:
        pool, store = CELLS[figures.executions % len(CELLS)]
        place_folder = folder / str(figures.executions)
        place_folder.mkdir()
        with ModelServer({"boss": boss, "helper": helper}) as server:
            place = Place(
                folder=place_folder,
                module=module,
                server=server,
                pool=pool,
                store_url=urls.get(store),
                broker_url=urls["redis"] if figures.executions % 2 else None,
            )
            calls: Counter[str] = check_killed(place, kills=_IN_ONE_EXECUTION, dice=dice)
            figures.requests += len(server.requests)
            figures.repeated_requests += len(server.repeated())
        figures.executions += 1
        figures.deaths += _IN_ONE_EXECUTION
        figures.calls += sum(calls.values())
        figures.repeated_calls += sum(calls.values()) - len(calls)
    return figures
