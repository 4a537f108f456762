"""`agents fork` and `agents rewind`."""

from collections.abc import Callable
from typing import Any

import click

from celery_agents.cli.invocation import command_line, os_user, shared_runtime
from celery_agents.cli.output import as_json
from celery_agents.cli.parameters import Moment, parse_json, parse_metadata
from celery_agents.client.execution import Execution
from celery_agents.lifecycle.decider import COMMAND_LINE


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both commands take."""
    for option in reversed(
        (
            click.option("--input", "input_text", metavar="JSON", help="Another input.  [default: the same]"),
            click.option(
                "--metadata", "metadata_items", multiple=True, metavar="KEY=VALUE", help="Set over those of the other."
            ),
            click.option("--session", metavar="ID", help="Another conversation.  [default: the same]"),
            click.option("--deadline", type=Moment(ahead=True), help="When it has to be over, e.g. 2h."),
            click.option("--sender", metavar="NAME", help="Who wants it.  [default: the system user]"),
            click.option("--reason", metavar="TEXT", help="Why; recorded in the audit trail."),
            click.option("--json", "wants_json", is_flag=True, help="Print the new execution as one JSON document."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("execution_id")
@click.option("--at-step", type=click.IntRange(min=0), required=True, metavar="N", help="The last step to share.")
@_options
@click.pass_context
def fork(ctx: click.Context, /, execution_id: str, at_step: int, wants_json: bool, **given: Any) -> None:
    """Start a new execution that shares the first steps of another one.

    The shared steps are not run again, and the other execution stays as it is. Print the id of the new execution.

    \b
      celery -A celery_agents agents fork EXECUTION_ID --at-step 3
      celery -A celery_agents agents fork EXECUTION_ID --at-step 0 --input '{"amount": 20}'
    """
    from celery_agents.replay import fork as start

    runtime = shared_runtime(ctx)
    _print(ctx, start(execution_id.strip(), at_step, runtime=runtime, **_parsed(**given)), execution_id, wants_json)


@click.command()
@click.argument("execution_id")
@click.option("--to-step", type=click.IntRange(min=0), required=True, metavar="N", help="The last step to keep.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its worker to stop.",
)
@_options
@click.pass_context
def rewind(
    ctx: click.Context, /, execution_id: str, to_step: int, timeout: float, wants_json: bool, **given: Any
) -> None:
    """Cancel an execution and go on from one of its steps in a new one.

    An execution that is over is only forked. Print the id of the new execution.

    \b
      celery -A celery_agents agents rewind EXECUTION_ID --to-step 3 --reason "wrong customer"
    """
    from celery_agents.replay import rewind as start

    try:
        started = start(execution_id.strip(), to_step, timeout=timeout, runtime=shared_runtime(ctx), **_parsed(**given))
    except TimeoutError as error:
        raise click.ClickException(f"{error}; repeat the command") from error
    _print(ctx, started, execution_id, wants_json)


def _parsed(
    *, input_text: str | None, metadata_items: tuple[str, ...], session: str | None, sender: str | None, **given: Any
) -> dict[str, Any]:
    if input_text is not None:
        given["input"] = parse_json(input_text, "input")
    if session is not None:
        given["session_id"] = session
    return {**given, "metadata": parse_metadata(metadata_items), "sender": sender or os_user(), "channel": COMMAND_LINE}


def _print(ctx: click.Context, started: Execution, execution_id: str, wants_json: bool) -> None:
    if wants_json:
        as_json.write(as_json.of_record(started.summary()))
        return
    click.echo(started.id)
    click.echo(f"See what differs later: {command_line(ctx, 'diff', execution_id.strip(), started.id)}", err=True)
