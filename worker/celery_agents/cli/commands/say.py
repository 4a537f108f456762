"""`agents say`."""

import click

from agent_statestore.records import SayMode
from celery_agents.cli.invocation import execution_of, os_user, shared_runtime
from celery_agents.lifecycle.decider import COMMAND_LINE
from celery_agents.lifecycle.saying import DEFAULT_MODE, ROLLBACK


@click.command("say")
@click.argument("execution_id")
@click.argument("text")
@click.option(
    "--mode",
    type=click.Choice([*(mode.value for mode in SayMode), ROLLBACK]),
    default=DEFAULT_MODE.value,
    show_default=True,
    help="When it is read; interrupt ends the model's call in flight, rollback goes on from an earlier step.",
)
@click.option("--to-step", type=click.IntRange(min=0), metavar="N", help="With --mode rollback: the last step to keep.")
@click.option("--message-id", metavar="ID", help="What this execution was told under this id before counts once.")
@click.option("--sender", metavar="NAME", help="Who says it.  [default: the system user]")
@click.pass_context
def say(
    ctx: click.Context,
    execution_id: str,
    text: str,
    mode: str,
    to_step: int | None,
    message_id: str | None,
    sender: str | None,
) -> None:
    """Say something to an execution while it runs.

    A loop agent or an integration tells its model. It answers no question: see resume. With --mode rollback the
    execution is cancelled, and another one goes on from one of its steps with the message; its id is printed.

    \b
      celery -A celery_agents agents say EXECUTION_ID "use the EU index"
      celery -A celery_agents agents say EXECUTION_ID "stop, wrong table" --mode interrupt
      celery -A celery_agents agents say EXECUTION_ID "ask Zoe first" --mode rollback --to-step 3
    """
    if (mode == ROLLBACK) != (to_step is not None):
        raise click.UsageError("--mode rollback and --to-step go together")
    if to_step is not None:
        _roll_back(ctx, execution_id, text, to_step, message_id, sender)
        return
    execution = execution_of(ctx, execution_id)
    execution.say(text, mode=mode, message_id=message_id, sender=sender or os_user())
    then = "It is read when that is over." if execution.summary().state.is_paused else "It is read as it goes on."
    click.echo(f"Said to execution {execution.id}, which is {execution.summary().state.value}. {then}")


def _roll_back(
    ctx: click.Context, execution_id: str, text: str, to_step: int, message_id: str | None, sender: str | None
) -> None:
    from celery_agents.replay import roll_back

    try:
        new = roll_back(
            execution_id.strip(),
            to_step,
            text,
            message_id=message_id,
            sender=sender or os_user(),
            channel=COMMAND_LINE,
            runtime=shared_runtime(ctx),
        )
    except TimeoutError as error:
        raise click.ClickException(f"{error}; repeat the command, with a --message-id") from error
    click.echo(new.id)
