"""`agents copy`."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from sqlalchemy import make_url

from agent_statestore.moving.copying import Copied, CopyOutcome, copy, count, verify
from agent_statestore.moving.documents import CopiedDocuments, copy_documents, verify_documents
from agent_statestore.opening import open_store
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.cli.invocation import app_runtime, shared_runtime
from celery_agents.cli.output.text import counted, one_line

if TYPE_CHECKING:
    from rich.console import Console

# What a shell reports for a program that Ctrl-C ended.
_INTERRUPTED: Final = 130

_LINE_EVERY_SECONDS: Final = 5.0
_YEAR: Final = timedelta(days=365)

# The words are for a person who wants to know whether everything is there.
_WORDS: Final = {
    CopyOutcome.COPIED: "copied",
    CopyOutcome.PRESENT: "there already",
    CopyOutcome.NEWER: "newer there",
    CopyOutcome.DELETED: "deleted there",
    CopyOutcome.GONE: "removed meanwhile",
    CopyOutcome.LEASED: "held by workers",
    CopyOutcome.MISSING: "missing",
    CopyOutcome.DIFFERENT: "different",
    CopyOutcome.REFUSED: "refused",
    CopyOutcome.EXTRA: "only in the target",
}


@click.command("copy")
@click.option("--from", "source_url", metavar="URL", help="The store to copy from.  [default: the configured one]")
@click.option(
    "--to", "target_url", metavar="URL", help="The store to copy to; its schema must be there.  [default: as above]"
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in AgentState]),
    help="Only executions in this state; may be repeated.",
)
@click.option("--verify-only", is_flag=True, help="Copy nothing; compare the digests of all executions.")
@click.option("--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="Executions copied at once.")
@click.pass_context
def copy_executions(
    ctx: click.Context,
    source_url: str | None,
    target_url: str | None,
    states: tuple[str, ...],
    verify_only: bool,
    threads: int,
) -> None:
    """Copy executions, active and finished, from one store to another.

    Documents are copied, too: conversations and what is remembered. With --state they are not.

    Each copy is read back and compared. The command may be repeated: executions that are there already are skipped.
    Executions that workers hold are skipped too, so stop the workers before the last run, and let no worker run on the
    old store afterwards. Deleted executions are not copied. Exit with 1 if the target lacks something.

    \b
      celery -A celery_agents agents copy --to postgresql+psycopg://user:password@host/db
      celery -A celery_agents agents copy --from redis://host/1 --to sqlite:///archive.db --state completed
      celery -A celery_agents agents copy --to postgresql+psycopg://user:password@host/db --verify-only
    """
    if source_url is None and target_url is None:
        raise click.UsageError("say where to copy from, or to: --from URL, --to URL or both")
    wanted = [AgentState(state) for state in states] or None
    limit = app_runtime(ctx).settings.max_value_bytes
    _require_file(source_url)
    with ExitStack() as opened:
        source, target = (
            shared_runtime(ctx, creates=True).store
            if url is None
            else opened.enter_context(open_store(url, max_value_bytes=limit))
            for url in (source_url, target_url)
        )
        source.check()
        target.check()
        done = _run(ctx, source, target, wanted, verify_only, threads)
        # They belong to executions of all states, and to none.
        move = verify_documents if verify_only else copy_documents
        documents = CopiedDocuments() if wanted else move(source, target)
        has_deleted = bool(source.find_deleted(datetime.now(UTC) + _YEAR, 1))
    _print_problems(done)
    click.echo(f"{_what_was_done(done)}.")
    if documents.total:
        newer = f", newer there {documents.newer}" if documents.newer else ""
        click.echo(f"{counted(documents.total, 'document')}: there now {documents.same}{newer}.")
    if has_deleted:
        click.echo("Executions that are deleted in the source were left out.", err=True)
    if not (done.is_complete and documents.is_complete):
        click.echo("The target does not have all of them; the command may be repeated.", err=True)
        ctx.exit(1)


def _require_file(source_url: str | None) -> None:
    """Refuse a missing SQLite file: SQLite would make it, and an empty store from a misspelt path is soon copied."""
    if source_url is None or not source_url.startswith("sqlite"):
        return
    file = make_url(source_url).database
    if file and not Path(file).exists():
        raise click.BadParameter(f"there is no file {file!r}", param_hint="'--from'")


def _run(
    ctx: click.Context,
    source: Store,
    target: Store,
    states: Collection[AgentState] | None,
    verify_only: bool,
    threads: int,
) -> Copied:
    from celery_agents.cli.output.terminal import is_live, make_console

    done, console = Copied(), make_console(ctx)
    try:
        with _drawn_live(console, count(source, states)) if is_live(console) else _in_lines() as show:

            def note(so_far: Copied) -> None:
                nonlocal done
                done = so_far
                show(so_far)

            return (verify if verify_only else copy)(source, target, states=states, threads=threads, on_progress=note)
    except KeyboardInterrupt:
        click.echo(
            f"Interrupted: {_what_was_done(done)}. Nothing is half copied; repeat the command to go on.", err=True
        )
        ctx.exit(_INTERRUPTED)


@contextmanager
def _drawn_live(console: "Console", total: int) -> Iterator[Callable[[Copied], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)

        def show(so_far: Copied) -> None:
            progress.update(
                task, completed=so_far.total, total=max(total, so_far.total), description=_what_was_done(so_far)
            )

        yield show


@contextmanager
def _in_lines() -> Iterator[Callable[[Copied], None]]:
    said_at = time.monotonic()

    def show(so_far: Copied) -> None:
        nonlocal said_at
        if time.monotonic() >= said_at + _LINE_EVERY_SECONDS:
            said_at = time.monotonic()
            click.echo(f"{datetime.now().astimezone():%H:%M:%S}  {_what_was_done(so_far)}", err=True)

    yield show


def _what_was_done(done: Copied) -> str:
    counts = [f"{word} {done.counts[outcome]}" for outcome, word in _WORDS.items() if outcome in done.counts]
    return counted(done.total, "execution") + (f": {', '.join(counts)}" if counts else "")


def _print_problems(done: Copied) -> None:
    for problem in done.problems:
        click.echo(f"{_WORDS[problem.outcome]}: {one_line(problem.execution_id)}: {one_line(problem.reason)}", err=True)
