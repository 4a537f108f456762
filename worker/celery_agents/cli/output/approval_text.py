"""Approvals in words. Knows nothing of rich."""

import shlex

import click

from agent_statestore.records import JSONValue, Wait
from celery_agents.cli.invocation import command_line
from celery_agents.cli.output.text import exact, one_line, revealed
from celery_agents.lifecycle.signals import shown


def call_text(asked: Wait, arguments: JSONValue = None) -> str:
    """Return the call that asks for approval on one line, with other arguments if given: `pay {"amount": 30}`."""
    call = shown(asked)
    return f"{revealed(one_line(str(call['tool'])))} {exact(call['arguments'] if arguments is None else arguments)}"


def voting_lines(asked: Wait) -> list[str]:
    """Return who decides, and who has voted; nothing where anybody may."""
    call = shown(asked)
    if not call.get("approvers"):
        return []
    lines = [f"needs {call['quorum']} of {', '.join(one_line(str(name)) for name in call['approvers'])}"]
    for vote in call.get("votes", ()):
        reason = f": {one_line(str(vote['reason']))}" if vote.get("reason") else ""
        lines.append(f"{'approved' if vote['approved'] else 'rejected'} by {one_line(str(vote['by']))}{reason}")
    return lines


def deciding_lines(ctx: click.Context, execution_id: str, asked: Wait) -> list[str]:
    """Return the commands that approve this very call and no other, and that reject it, ready to be copied."""
    options = [f"--key {shlex.quote(asked.key)}", f"--digest {shlex.quote(str(shown(asked)['digest']))}"]
    return [revealed(command_line(ctx, command, execution_id, *options)) for command in ("approve", "reject")]
