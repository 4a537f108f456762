"""A sequential pipeline: each step takes what the step before it has recorded.

A crash between two steps repeats neither of them; a crash inside a step repeats only that one.
"""

from pydantic import BaseModel

from celery_agents import Run, agent


class Change(BaseModel):
    """One line of a change log: `kind` stands before its colon."""

    kind: str
    text: str


@agent
def release_notes(run: Run, log: str) -> str:
    """Make release notes of the lines of a change log."""
    changes = run.step("parse", parse, log)
    grouped = run.step("group", group, changes)
    return run.step("render", render, grouped)


def parse(log: str) -> list[Change]:
    """Return the changes, and leave out lines without a kind."""
    parts = [line.partition(":") for line in log.splitlines()]
    return [Change(kind=kind.strip(), text=text.strip()) for kind, colon, text in parts if colon]


def group(changes: list[Change]) -> dict[str, list[str]]:
    """Return the texts of each kind."""
    grouped: dict[str, list[str]] = {}
    for change in changes:
        grouped.setdefault(change.kind, []).append(change.text)
    return grouped


def render(grouped: dict[str, list[str]]) -> str:
    """Return Markdown."""
    return "\n".join(f"## {kind}\n" + "".join(f"- {text}\n" for text in texts) for kind, texts in grouped.items())
