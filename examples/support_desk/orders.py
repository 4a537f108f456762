"""The shop's orders and refunds, in a SQLite file."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Orders:
    """What the agent depends on: where the orders are. Made anew for each attempt, and never stored."""

    path: Path

    def create(self) -> None:
        """Make the file, with one order."""
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, article TEXT, price REAL, state TEXT)")
            db.execute("INSERT INTO orders VALUES (1007, 'espresso machine', 120.0, 'arrived broken')")
            # One line for each call that paid: whoever repeats a call repeats its id, and pays nothing.
            db.execute("CREATE TABLE refunds (call_id TEXT PRIMARY KEY, number INTEGER, amount REAL, reason TEXT)")

    def find(self, number: int) -> dict[str, object] | None:
        """Return an order; None if there is none of this number."""
        with closing(sqlite3.connect(self.path)) as db:
            db.row_factory = sqlite3.Row
            row = db.execute("SELECT * FROM orders WHERE number = ?", (number,)).fetchone()
        return None if row is None else dict(row)

    def refund(self, call_id: str, number: int, amount: float, reason: str) -> None:
        """Pay money back, once for each `call_id`."""
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("INSERT OR IGNORE INTO refunds VALUES (?, ?, ?, ?)", (call_id, number, amount, reason))

    def refunds(self) -> list[tuple[int, float]]:
        """Return what was paid back: order and amount."""
        with closing(sqlite3.connect(self.path)) as db:
            return [(number, amount) for number, amount in db.execute("SELECT number, amount FROM refunds")]
