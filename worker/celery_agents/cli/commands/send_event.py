"""`agents send-event`."""

import click

from agent_statestore.records import WaitKind
from celery_agents.cli.invocation import execution_of, os_user
from celery_agents.cli.output.text import one_line
from celery_agents.cli.parameters import parse_answer


@click.command("send-event")
@click.argument("execution_id")
@click.argument("name")
@click.argument("payload", required=False)
@click.option("--text", "as_text", is_flag=True, help="Take the payload as text, even if it looks like JSON.")
@click.option("--event-id", metavar="ID", help="What this execution was sent under this id before counts once.")
@click.option("--sender", metavar="NAME", help="Who sends it.  [default: the system user]")
@click.pass_context
def send_event(
    ctx: click.Context,
    execution_id: str,
    name: str,
    payload: str | None,
    as_text: bool,
    event_id: str | None,
    sender: str | None,
) -> None:
    """Send an event to an execution.

    PAYLOAD is JSON if it parses, otherwise text. A payload that begins with { must be JSON, unless --text is given.
    Without PAYLOAD the payload is null. An event that the execution does not wait for is kept until it does. A negative
    number needs -- before the arguments.

    \b
      celery -A celery_agents agents send-event EXECUTION_ID paid '{"amount": 30}' --event-id charge-7
    """
    execution = execution_of(ctx, execution_id)
    is_awaited = any((wait.kind, wait.key) == (WaitKind.EVENT, name) for wait in execution.summary().waits)
    value = None if payload is None else parse_answer(payload, as_text=as_text)
    execution.send_event(name, value, event_id=event_id, sender=sender or os_user())
    then = "it waits for it and goes on." if is_awaited else "it does not wait for it now, so it is kept."
    click.echo(f'Sent "{one_line(name)}" to execution {execution.id}; {then}')
