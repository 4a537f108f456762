"""Questions and approvals of which several may be open: which one a command means. Knows nothing of rich."""

import shlex
from collections.abc import Callable

import click

from agent_statestore.records import ExecutionSummary, Wait
from celery_agents.cli.invocation import command_line
from celery_agents.cli.output.text import revealed
from celery_agents.lifecycle.signals import SeveralAsked, questions_of


def answering_line(ctx: click.Context, summary: ExecutionSummary, asked: Wait) -> str:
    """Return the command that answers a question, ready to be copied; it names the question if there are several."""
    if len(questions_of(summary)) == 1:
        return command_line(ctx, "resume", summary.execution_id, "ANSWER")
    return _with_key(ctx, "resume", summary.execution_id, ["ANSWER"], asked.key)


def one_of(ctx: click.Context, command: str, arguments: list[str], find: Callable[[], Wait | None]) -> Wait | None:
    """Return what `find` does; where it says that there are several, list the commands that name one of them."""
    try:
        return find()
    except SeveralAsked as error:
        lines = [_with_key(ctx, command, error.execution_id, arguments, key) for key in error.keys]
        what = f"execution {error.execution_id} waits for {len(error.keys)} {error.what}; say which one:"
        raise click.UsageError("\n  ".join([what, *lines])) from error


def _with_key(ctx: click.Context, command: str, execution_id: str, arguments: list[str], key: str) -> str:
    # With "=", as a key may begin with a dash.
    return " ".join(
        revealed(command_line(ctx, command, execution_id, *arguments, f"--key={shlex.quote(key)}")).split("\n")
    )
