"""`python -m benchmarks [--quick] [--json FILE] [SECTION ...]`."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import growth, overhead, resuming, storage, throughput
from benchmarks.report import Table, environment, show
from benchmarks.servers import ServerMissing, Servers, started
from benchmarks.sizes import DEFAULT, QUICK, Sizes

Measure = Callable[[Servers, Sizes], list[Table]]

SECTIONS: Final[dict[str, Measure]] = {
    "overhead": overhead.measure,
    "growth": growth.measure,
    "storage": storage.measure,
    "resume": resuming.measure,
    "workers": throughput.measure,
}


def main(arguments: Sequence[str] | None = None, *, sizes: Sizes | None = None) -> int:
    """Measures, prints, and returns the exit status. `sizes` overrules what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a first impression in less than a minute")
    parser.add_argument("--long", action="store_true", help="measure growth at 10,000 steps too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    sizes = sizes or (QUICK if options.quick else DEFAULT)
    if options.long:
        sizes = replace(sizes, growth_at=(*sizes.growth_at, 10_000))
    console = Console(width=None if sys.stdout.isatty() else 140)
    tables: list[Table] = []
    began = time.monotonic()
    try:
        with started() as servers:
            for name in options.sections or SECTIONS:
                for table in SECTIONS[name](servers, sizes):
                    tables.append(table)
                    show(table, console)
    except ServerMissing as error:
        console.print(f"[red]{error}")
        return 1
    console.print(f"{time.monotonic() - began:.0f} s")
    if options.json:
        figures = {"environment": environment(), "tables": [asdict(table) for table in tables]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
