"""A sequential pipeline: each step takes what the one before it has recorded.

A crash between two steps repeats neither of them; a crash inside one repeats that one alone.
"""

from pydantic import BaseModel

from celery_agents import Run, agent


class Change(BaseModel):
    """One line of a change log: `kind` is what stands before its colon."""

    kind: str
    text: str


@agent
def release_notes(run: Run, log: str) -> str:
    """Makes release notes of the lines of a change log."""
    changes = run.step("parse", parse, log)
    grouped = run.step("group", group, changes)
    return run.step("render", render, grouped)


def parse(log: str) -> list[Change]:
    """The changes; lines without a kind are none."""
    parts = [line.partition(":") for line in log.splitlines()]
    return [Change(kind=kind.strip(), text=text.strip()) for kind, colon, text in parts if colon]


def group(changes: list[Change]) -> dict[str, list[str]]:
    """The texts of each kind."""
    grouped: dict[str, list[str]] = {}
    for change in changes:
        grouped.setdefault(change.kind, []).append(change.text)
    return grouped


def render(grouped: dict[str, list[str]]) -> str:
    """Markdown."""
    return "\n".join(f"## {kind}\n" + "".join(f"- {text}\n" for text in texts) for kind, texts in grouped.items())
