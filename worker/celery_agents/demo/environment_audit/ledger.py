"""A file with one line per call of a step's function: what really ran, whoever recorded it."""

import os
from pathlib import Path


def note(ledger: Path | None, step: str) -> None:
    """Append "process id, step" in one write, so that lines of several processes do not mix."""
    if ledger is None:
        return
    with ledger.open("ab", buffering=0) as file:
        file.write(f"{os.getpid()}\t{step}\n".encode())


def calls(ledger: Path) -> list[str]:
    """Return the steps whose functions were called, in order; one entry per call."""
    if not ledger.exists():
        return []
    lines = ledger.read_text(encoding="utf-8").split("\n")
    return [line.split("\t", 1)[1] for line in lines if "\t" in line]
