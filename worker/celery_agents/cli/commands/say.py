"""`agents say`."""

import click

from agent_statestore.records import SayMode
from celery_agents.cli.invocation import execution_of, os_user
from celery_agents.lifecycle.saying import DEFAULT_MODE


@click.command("say")
@click.argument("execution_id")
@click.argument("text")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in SayMode]),
    default=DEFAULT_MODE.value,
    show_default=True,
    help="When it is read; interrupt ends the model's call in flight.",
)
@click.option("--message-id", metavar="ID", help="What this execution was told under this id before counts once.")
@click.option("--sender", metavar="NAME", help="Who says it.  [default: the system user]")
@click.pass_context
def say(
    ctx: click.Context, execution_id: str, text: str, mode: str, message_id: str | None, sender: str | None
) -> None:
    """Say something to an execution while it runs.

    A loop agent or an integration tells its model. It answers no question: see resume.

    \b
      celery -A celery_agents agents say EXECUTION_ID "use the EU index"
      celery -A celery_agents agents say EXECUTION_ID "stop, wrong table" --mode interrupt
    """
    execution = execution_of(ctx, execution_id)
    execution.say(text, mode=mode, message_id=message_id, sender=sender or os_user())
    then = "It is read when that is over." if execution.summary().state.is_paused else "It is read as it goes on."
    click.echo(f"Said to execution {execution.id}, which is {execution.summary().state.value}. {then}")
