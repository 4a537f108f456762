"""`celery -A celery_agents agents ...`: start, find, watch, answer, approve, cancel and recover executions.

The way of a command: `group` finds its module -> `invocation` gives it the app's runtime -> the command's own module ->
`rendering` or `as_json` -> the terminal. Every `celery` command imports this package, so a command's module is imported
when that command is called, and rich is imported only where something is drawn.
"""

import click

from celery_agents.cli.group import AgentsGroup

__all__ = ["agents"]


@click.group(cls=AgentsGroup)
def agents() -> None:
    """Start, watch, answer and recover durable agent executions.

    \b
      celery -A celery_agents agents enqueue research '"Why is the sky blue?"' --follow
      celery -A celery_agents agents list --state failed --since 2h
      celery -A celery_agents agents resume EXECUTION_ID yes
      celery -A celery_agents agents approve EXECUTION_ID
    """
