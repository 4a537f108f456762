"""What the agent can do: look for stays, and book one of them, in a SQLite file."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field
from typing_extensions import TypedDict

from celery_agents import ToolContext, tool

# Where the bookings are.
FILE: Final = "WEB_CHAT_BOOKINGS"
_LOOK_SECONDS: Final = 0.4

Name = Literal["Casa do Mar", "Pensão Aurora", "Quinta das Dunas"]


class Stay(TypedDict):
    """A place to stay at."""

    name: Name
    where: str
    price: int
    breakfast: int


STAYS: Final[tuple[Stay, ...]] = (
    {"name": "Casa do Mar", "where": "Ericeira, above the beach", "price": 112, "breakfast": 12},
    {"name": "Pensão Aurora", "where": "Cascais, in a quiet lane", "price": 74, "breakfast": 9},
    {"name": "Quinta das Dunas", "where": "Sintra coast, among pines", "price": 145, "breakfast": 0},
)


@tool
def search_stays(context: ToolContext, place: str, nights: int) -> list[Stay]:
    """Look for quiet stays by the sea near a place."""
    for stay in STAYS:
        context.emit({"looks_at": stay["name"], "near": place, "nights": nights})
        time.sleep(_LOOK_SECONDS)
    return list(STAYS)


@tool(requires_approval=True)
def book_stay(
    context: ToolContext,
    stay: Name,
    nights: Annotated[int, Field(ge=1, le=30)],
    guests: Annotated[int, Field(ge=1, le=6)],
    breakfast: bool,
    note: Annotated[str, Field(max_length=200)] = "",
) -> str:
    """Book a stay. It costs money, so the traveller has to agree, and may change what is booked."""
    chosen = next(each for each in STAYS if each["name"] == stay)
    price = nights * (chosen["price"] + (chosen["breakfast"] * guests if breakfast else 0))
    with _bookings() as db:
        # Whoever repeats a call after a crash repeats its key, and books nothing anew.
        row = (context.idempotency_key, stay, nights, guests, breakfast, note, price)
        db.execute("INSERT OR IGNORE INTO bookings VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    meals = "with breakfast" if breakfast else "without breakfast"
    return f"booked {stay} for {guests}, {nights} nights {meals}, {price} euros"


def booked() -> list[tuple[str, int, int, bool]]:
    """Return all bookings: stay, nights, guests, breakfast."""
    with _bookings() as db:
        rows = db.execute("SELECT stay, nights, guests, breakfast FROM bookings").fetchall()
    return [(stay, nights, guests, bool(breakfast)) for stay, nights, guests, breakfast in rows]


@contextmanager
def _bookings() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(Path(os.environ[FILE]))) as db, db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS bookings"
            " (key TEXT PRIMARY KEY, stay TEXT, nights INT, guests INT, breakfast INT, note TEXT, price INT)"
        )
        yield db
