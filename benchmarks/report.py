"""Tables of figures, for people and as JSON."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from rich.console import Console
from rich.table import Table as RichTable

Value = str | float | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. `rows` all have the same keys, which are the headings and name the unit. `note` says how to read it.

    A figure under a heading with a slash between spaces is a ratio.
    """

    name: str
    title: str
    note: str
    rows: Sequence[Mapping[str, Value]]


def show(table: Table, console: Console) -> None:
    """Print a table."""
    shown = RichTable(title=table.title, title_justify="left", caption=table.note, caption_justify="left")
    for number, heading in enumerate(table.rows[0]):
        shown.add_column(heading, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*(text_of(heading, value) for heading, value in row.items()))
    console.print(shown)
    console.print()


def environment_in_words() -> str:
    """Return, in one paragraph, what the figures depend on."""
    return ", ".join(f"{name} {value}" for name, value in environment().items()) + "\n"


def as_markdown(table: Table) -> str:
    """Return the table as it stands in a document."""
    headings = list(table.rows[0])
    lines = [
        f"## {table.title}",
        "",
        f"| {' | '.join(headings)} |",
        f"|---|{'---:|' * (len(headings) - 1)}",
        *(f"| {' | '.join(text_of(heading, value) for heading, value in row.items())} |" for row in table.rows),
        "",
        table.note,
        "",
    ]
    return "\n".join(lines)


def text_of(heading: str, value: Value) -> str:
    """Return a figure with as many digits as mean something."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if "/ " in heading:
        return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def environment() -> dict[str, Value]:
    """Return what the figures depend on."""
    packages = ("celery", "kombu", "redis", "psycopg", "pymysql", "SQLAlchemy", "pydantic")
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
