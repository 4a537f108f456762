"""`celery -A worker agents ...`: start, find, watch, answer, approve, cancel and recover executions.

The way of a command: `group` finds its module -> `invocation` gives it the app's runtime -> the command's own module ->
`rendering` or `as_json` -> the terminal. Every `celery` command imports this package, so a command's module is imported
when that command is called, and rich only where something is drawn.
"""

import click

from worker.cli.group import AgentsGroup

__all__ = ["agents"]


@click.group(cls=AgentsGroup)
def agents() -> None:
    """Start, watch, answer and recover durable agent executions.

    \b
      celery -A worker agents enqueue research '"Why is the sky blue?"' --follow
      celery -A worker agents list --state failed --since 2h
      celery -A worker agents resume EXECUTION_ID yes
      celery -A worker agents approve EXECUTION_ID
    """
