"""`agents approve` and `agents reject`."""

import sys
from datetime import UTC, datetime

import click

from agent_statestore.records import JSONValue, Wait
from celery_agents.cli.invocation import command_line, execution_of, os_user
from celery_agents.cli.output.approval_text import call_text
from celery_agents.cli.output.several import one_of
from celery_agents.cli.output.text import exact, one_line
from celery_agents.cli.parameters import parse_json
from celery_agents.client.execution import Execution
from celery_agents.lifecycle.signals import approval_of, approvals_of, question_of, shown, the_approval


@click.command()
@click.argument("execution_id")
@click.option("--arguments", "arguments_json", metavar="JSON", help="Call the tool with these arguments instead.")
@click.option("--digest", metavar="DIGEST", help="Approve only of the call that was shown with this digest.")
@click.option("--key", metavar="KEY", help="Approve only of this call: there may be several, or another by now.")
@click.option("--sender", metavar="NAME", help="Who approves.  [default: the system user]")
@click.option("--reason", metavar="TEXT", help="Why; recorded with the approval.")
@click.pass_context
def approve(
    ctx: click.Context,
    execution_id: str,
    arguments_json: str | None,
    digest: str | None,
    key: str | None,
    sender: str | None,
    reason: str | None,
) -> None:
    """Approve the tool call that an execution waits to make.

    Without --digest, show the call and ask, if there is a terminal. `agents show` prints the whole command. The first
    decision counts; a second one is refused.

    \b
      celery -A celery_agents agents approve EXECUTION_ID --digest DIGEST
      celery -A celery_agents agents approve EXECUTION_ID --arguments '{"to": "ann", "amount": 20}' --reason "too much"
    """
    execution = execution_of(ctx, execution_id)
    arguments = None if arguments_json is None else _parse_arguments(arguments_json)
    asked = _asked(ctx, "approve", execution, key, digest)
    if asked is not None and digest is None:
        if sys.stdin.isatty():
            _show(ctx, asked, arguments)
            click.confirm("Approve?", abort=True)
        # Approve what was shown here, or what the caller looked at a moment ago: not what may be asked for in a moment.
        key, digest = key or asked.key, shown(asked)["digest"]
    execution.approve(key=key, digest=digest, arguments=arguments, sender=sender or os_user(), reason=reason)
    called = "" if asked is None else f" {call_text(asked, arguments)}"
    click.echo(f"Approved{called} of execution {execution.id}; {_then(asked)}.")


@click.command()
@click.argument("execution_id")
@click.option("--digest", metavar="DIGEST", help="Reject only the call that was shown with this digest.")
@click.option("--key", metavar="KEY", help="Reject only this call: there may be several, or another by now.")
@click.option("--sender", metavar="NAME", help="Who rejects.  [default: the system user]")
@click.option("--reason", metavar="TEXT", help="Why; recorded, and told to the agent.")
@click.pass_context
def reject(
    ctx: click.Context,
    execution_id: str,
    digest: str | None,
    key: str | None,
    sender: str | None,
    reason: str | None,
) -> None:
    """Refuse the tool call that an execution waits to make.

    The agent is told so, and may go on without it. The first decision counts; a second one is refused.

    \b
      celery -A celery_agents agents reject EXECUTION_ID --reason "too much"
    """
    execution = execution_of(ctx, execution_id)
    asked = _asked(ctx, "reject", execution, key, digest)
    if asked is not None and digest is None:
        key, digest = key or asked.key, shown(asked)["digest"]
    execution.reject(key=key, digest=digest, sender=sender or os_user(), reason=reason)
    called = "" if asked is None else f" {call_text(asked)}"
    click.echo(f"Rejected{called} of execution {execution.id}; {_then(asked)}.")


def _then(asked: Wait | None) -> str:
    call = {} if asked is None else shown(asked)
    return f"the decision takes {call['quorum']} of {len(call['approvers'])}" if call.get("approvers") else "it goes on"


def _parse_arguments(text: str) -> dict[str, JSONValue]:
    arguments = parse_json(text, "arguments")
    if not isinstance(arguments, dict):
        raise click.UsageError("the arguments are a JSON object, each by its name")
    return arguments


def _asked(ctx: click.Context, command: str, execution: Execution, key: str | None, digest: str | None) -> Wait | None:
    """Return the approval that is meant; where only a question is open, point to the command that answers it."""
    summary = execution.summary()
    question = question_of(summary)
    if question is not None and not approvals_of(summary) and not summary.state.is_over:
        answer = command_line(ctx, "resume", execution.id, "ANSWER")
        instead = f'it waits for the answer to "{one_line(question.key)}": {answer}'
        raise click.ClickException(f"execution {execution.id} does not wait for an approval: {instead}")
    if summary.state.is_over:
        return approval_of(summary)
    return one_of(ctx, command, [], lambda: the_approval(summary, key, digest))


def _show(ctx: click.Context, asked: Wait, arguments: dict[str, JSONValue] | None) -> None:
    from celery_agents.cli.output.rendering import print_approval
    from celery_agents.cli.output.terminal import make_console

    print_approval(make_console(ctx), asked, None, datetime.now(UTC))
    if arguments is not None:
        click.echo(f"  with these arguments instead: {exact(arguments)}")
