"""A table of one line per row, for terminals and pipes.

Rich's own table narrows every column when there is too little room, even ids, and pads each line with blanks. Here only
the columns that allow it give way, the last ones first. An id is never cut: rather, the line is too long.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

_GAP: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. `least` is the width in characters to which it may be cut; None means that it is never cut."""

    name: str
    least: int | None = None
    is_number: bool = False


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> Iterator[Text]:
    """Yield the header and the rows as lines."""
    widths = _fit(
        columns, [max([len(column.name), *(row[n].cell_len for row in rows)]) for n, column in _each(columns)], width
    )
    header = [Text(column.name, style="bold") for column in columns]
    for cells in (header, *rows):
        line = Text(no_wrap=True, overflow="ignore")
        for n, column in _each(columns):
            cell = cells[n].copy()
            cell.truncate(widths[n], overflow="ellipsis")
            blanks = " " * (widths[n] - cell.cell_len)
            line.append(blanks if column.is_number else "")
            line.append_text(cell)
            line.append(("" if column.is_number else blanks) + " " * _GAP)
        line.rstrip()
        yield line


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    excess = sum(widths) + _GAP * (len(widths) - 1) - width
    for n, column in reversed(_each(columns)):
        if excess > 0 and column.least is not None:
            cut = min(excess, max(0, widths[n] - max(column.least, len(column.name))))
            widths[n] -= cut
            excess -= cut
    return widths


def _each(columns: Sequence[Column]) -> list[tuple[int, Column]]:
    return list(enumerate(columns))
