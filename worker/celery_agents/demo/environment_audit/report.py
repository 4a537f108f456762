"""The report: Markdown that says the same whenever the same environment is audited."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from celery_agents.demo.environment_audit.inspection import Finding, Installed, total
from celery_agents.demo.environment_audit.licences import Kind


def render(installed: Installed, findings: Sequence[Finding]) -> str:
    """Return the report. It holds no time and no path of this machine, so that two reports can be compared."""
    totals = total(findings)
    kinds = Counter(finding.licence.kind for finding in findings)
    lines = [
        "# Audit of a Python environment",
        "",
        f"Python {installed.python}: {totals.in_words}.",
        "",
        "## Licences",
        "",
        *_table(("kind", "distributions"), ((kind.value, str(kinds[kind])) for kind in Kind)),
        "",
        "## Not intact",
        "",
        *_faults(installed, findings),
        "",
        "## Distributions",
        "",
        *_table(
            ("name", "version", "licence", "by", "files verified", "KiB", "commands", "required by"),
            (_row(finding) for finding in findings),
        ),
    ]
    return "\n".join(lines) + "\n"


def write_once_complete(path: Path, text: str) -> None:
    """Write the whole file or nothing: nobody ever reads half of it, and a crash leaves none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _faults(installed: Installed, findings: Sequence[Finding]) -> list[str]:
    lines = [f"- {installed.unreadable} folders hold no usable metadata"] if installed.unreadable else []
    for finding in findings:
        if finding.is_intact:
            continue
        lines.append(f"- {_text(finding.name)}: {finding.integrity_in_words}")
        for word, paths in (
            ("modified", finding.modified),
            ("missing", finding.missing),
            ("no hash", finding.unhashed),
        ):
            lines += [f"  - {word}: `{path}`" for path in paths]
    return lines or ["Nothing: every file that could be verified has the hash that it was published with."]


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        finding.name,
        finding.version + (" (editable)" if finding.is_editable else ""),
        finding.licence.kind.value,
        finding.licence.evidence,
        str(finding.verified),
        str(round(finding.size_bytes / 1024)),
        ", ".join(finding.commands),
        ", ".join(finding.required_by),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(_text, line)) + " |" for line in lines]


def _text(cell: str) -> str:
    """Return a cell that cannot break the table."""
    return " ".join(cell.split()).replace("|", "\\|")
