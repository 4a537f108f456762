"""`agents archive`."""

from datetime import datetime

import click

from agent_statestore.hybrid import HybridStore
from celery_agents.cli.invocation import app_runtime
from celery_agents.cli.output.text import counted
from celery_agents.cli.parameters import Moment
from celery_agents.errors import ConfigurationError


@click.command()
@click.option(
    "--older-than",
    "before",
    type=Moment(ago=True),
    help="Only executions that were over before, e.g. 7d.  [default: agents_archive_after_seconds ago]",
)
@click.pass_context
def archive(ctx: click.Context, before: datetime | None) -> None:
    """Move finished executions to the archive now.

    Workers do this by themselves, when an execution is over or agents_archive_after_seconds later. This command catches
    up after an outage, or archives earlier. Exit with 1 if an execution could not be moved.

    \b
      celery -A celery_agents agents archive
      celery -A celery_agents agents archive --older-than 7d
    """
    store = app_runtime(ctx).store
    if not isinstance(store, HybridStore):
        raise ConfigurationError("agents_archive_url", f"the store {store.url} has no archive: set AGENTS_ARCHIVE_URL")
    archived = refused = 0
    while True:
        done = store.archive(before=before)
        archived, refused = archived + done.archived, refused + done.refused
        if not done.archived and not done.refused:
            break
    click.echo(f"Archived {counted(archived, 'execution')} in {store.cold.url}.")
    if refused:
        click.echo(f"Not archived, for the reasons above: {counted(refused, 'execution')}.", err=True)
        ctx.exit(1)
