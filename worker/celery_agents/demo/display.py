"""What the person sees: live on a terminal, plain lines in a file or a pipe."""

import os
import select
import sys
import termios
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from celery_agents.demo.proof import Check

_PLAIN_LINES: Final = 6
# Nobody should wonder for longer whether it still runs.
_SILENCE_SECONDS: Final = 5.0


@dataclass
class Display:
    """Say what happens, with the seconds since the start."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    started: float = field(default_factory=time.monotonic)
    _spoke_at: float = field(default_factory=time.monotonic)

    @property
    def is_live(self) -> bool:
        """Whether a person looks on while it happens."""
        return sys.stdout.isatty() and self.console.is_terminal

    @property
    def can_ask(self) -> bool:
        """Whether that person can answer."""
        return self.is_live and sys.stdin.isatty()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def title(self, text: str) -> None:
        """Print a heading."""
        self.console.print(Text(text, style="bold"))

    def text(self, text: str = "") -> None:
        """Print a paragraph."""
        self.console.print(Text(text), soft_wrap=not self.is_live)

    def event(self, text: str, style: str = "") -> None:
        """Print what happened just now."""
        line = Text.assemble((f"{self.elapsed:5.1f} s  ", "dim"), (text, style))
        self.console.print(line, soft_wrap=True)
        self._spoke_at = time.monotonic()

    def keep_company(self, text: str) -> None:
        """Print `text` if nothing has happened for some seconds."""
        if time.monotonic() - self._spoke_at >= _SILENCE_SECONDS:
            self.event(text, "dim")

    @contextmanager
    def progress(self, label: str, total: int | None, done: int = 0) -> Iterator["RecordedSteps"]:
        """Show recorded steps as they come."""
        if not self.is_live:
            yield RecordedSteps(self, label, total)
            return
        columns = (
            TextColumn("         {task.fields[label]}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=self.console, transient=False, refresh_per_second=20) as live:
            yield RecordedSteps(self, label, total, live, live.add_task("", total=total, completed=done, label=label))

    def prompt(self, question: str) -> None:
        """Print the agent's question."""
        wrapped = textwrap.fill(question, self.console.width - 4, initial_indent="  ", subsequent_indent="  ")
        self.console.print(Text(f"\n{wrapped}\n", style="bold"), soft_wrap=True)

    def ask(self, question: str, seconds: int) -> str | None:
        """Return the person's "yes" or "no"; None if nothing came in time."""
        termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        self.prompt(question)
        self.console.print(f"  y or n (y in {seconds} s): ", end="")
        give_up_at = time.monotonic() + seconds
        while (remaining := give_up_at - time.monotonic()) > 0:
            ready, _, _ = select.select([sys.stdin], [], [], remaining)
            if not ready:
                break
            line = os.read(sys.stdin.fileno(), 1024)  # one line: readline() might hide a second one from select()
            if not line:  # end of input
                break
            answer = line.decode(errors="replace").strip().lower()
            if answer in ("", "y", "yes"):
                return "yes"
            if answer in ("n", "no"):
                return "no"
            self.console.print("  Please answer y or n: ", end="")
        self.console.print()
        return None

    def checks(self, checks: Sequence[Check]) -> None:
        """Print the closing table."""
        widest = max(len(check.claim) for check in checks)
        for check in checks:
            mark, style, dim = ("ok", "bold green", "dim") if check.holds else ("FAILED", "bold red", "red")
            claim = f"  {check.claim:{widest}}  "
            self.console.print(Text.assemble("  ", (mark, style), claim, (check.evidence, dim)), soft_wrap=True)


@dataclass
class RecordedSteps:
    """Recorded steps, as a bar or as a few lines."""

    display: Display
    label: str
    total: int | None
    live: Progress | None = None
    task: TaskID | None = None

    def show(self, number: int, name: str, total: int | None) -> None:
        """Show that a step is recorded."""
        self.total = total or self.total
        if self.live is not None and self.task is not None:
            self.live.update(self.task, completed=number, total=self.total, description=name[:32])
        elif self.total and (number % max(1, self.total // _PLAIN_LINES) == 0 or number == self.total):
            self.display.event(f"  {self.label} {number}/{self.total} {name}")


def relative(path: Path) -> str:
    """Return the path as seen from here, if it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
