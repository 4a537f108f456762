"""`python -m benchmarks [--quick] [--json FILE] [SECTION ...]`."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import (
    concurrency,
    copying,
    files_entered,
    growth,
    loading,
    overhead,
    resuming,
    scale,
    storage,
    streams,
    throughput,
)
from benchmarks.executions import measure as executions
from benchmarks.report import Table, as_markdown, environment, environment_in_words, show
from benchmarks.servers import ServerMissing, Servers, started
from benchmarks.sizes import DEFAULT, QUICK, Sizes

Measure = Callable[[Servers, Sizes], list[Table]]


def _scaling(servers: Servers, sizes: Sizes) -> list[Table]:
    from benchmarks.scaling import measure  # here, because it needs SimPy, which is of use for nothing else

    return measure.measure(servers, sizes)


def _recall(servers: Servers, sizes: Sizes) -> list[Table]:
    from benchmarks.recall import measure  # here, because it needs an embedding, which is of use for nothing else

    return measure.measure(servers, sizes)


def _frameworks(servers: Servers, sizes: Sizes) -> list[Table]:
    from benchmarks.frameworks import measure  # here, because it needs the frameworks, which are big

    return measure(servers, sizes)


def _threads(servers: Servers, sizes: Sizes) -> list[Table]:
    from benchmarks.threads import measure  # here, for the same reason

    return measure(servers, sizes)


# They need another environment: `make bench-frameworks`.
_ELSEWHERE: Final = ("frameworks", "threads")
SECTIONS: Final[dict[str, Measure]] = {
    "overhead": overhead.measure,
    "growth": growth.measure,
    "streams": streams.measure,
    "storage": storage.measure,
    "resume": resuming.measure,
    "loading": loading.measure,
    "scale": scale.measure,
    "copying": copying.measure,
    "workers": throughput.measure,
    "concurrency": concurrency.measure,
    "executions": executions.measure,
    "scaling": _scaling,
    "files-entered": files_entered.measure,
    "recall": _recall,
    "frameworks": _frameworks,
    "threads": _threads,
}


def main(arguments: Sequence[str] | None = None, *, sizes: Sizes | None = None) -> int:
    """Measure, print, and return the exit status. `sizes` overrules the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        help=f"of {', '.join(SECTIONS)}; default: all but {', '.join(_ELSEWHERE)}",
    )
    parser.add_argument("--quick", action="store_true", help="a first impression in a few minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    sizes = sizes or (QUICK if options.quick else DEFAULT)
    console = Console(width=None if sys.stdout.isatty() else 140)
    tables: list[Table] = []
    began = time.monotonic()
    try:
        with started() as servers:
            if servers.mariadb is None:
                console.print("no MariaDB on PATH: left out (mariadb-server-core and mariadb-client-core bring it)\n")
            for name in options.sections or [name for name in SECTIONS if name not in _ELSEWHERE]:
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
    if options.markdown:
        options.markdown.write_text("\n".join([environment_in_words(), *(as_markdown(table) for table in tables)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
