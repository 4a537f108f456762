"""The console on which everything is drawn."""

import os
import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

# A pipe has no width: rows stay whole, and only endless values are cut.
_PIPE_COLUMNS: Final = 240


def make_console(ctx: click.Context) -> "Console":
    """Return a console on standard output that takes every text as it is, and never fails on unencodable text."""
    from rich.console import Console

    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _PIPE_COLUMNS
    return Console(
        file=sys.stdout,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        no_color=True if getattr(ctx.obj, "no_color", False) else None,
    )


def is_live(console: "Console") -> bool:
    """Return whether lines that are already shown can be drawn anew."""
    return sys.stdout.isatty() and not console.is_dumb_terminal
