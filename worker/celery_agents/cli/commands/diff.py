"""`agents diff`."""

from typing import TYPE_CHECKING

import click

from agent_statestore.records import JSONValue
from celery_agents.cli.invocation import execution_of
from celery_agents.cli.output import as_json
from celery_agents.cli.output.text import compact, counted, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from agent_statestore.records import AgentStep
    from celery_agents.replay import Difference, StepDifference


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--json", "wants_json", is_flag=True, help="Print the difference as one JSON document.")
@click.pass_context
def diff(ctx: click.Context, a: str, b: str, wants_json: bool) -> None:
    """Show how two executions differ: steps, input, output, error.

    Steps are compared by name. It makes no difference when they ran, how long they took and how often they were tried.

    \b
      celery -A celery_agents agents diff EXECUTION_ID FORKED_ID
    """
    from celery_agents.replay import diff as compare

    found = compare(execution_of(ctx, a).context(), execution_of(ctx, b).context())
    if wants_json:
        as_json.write(as_json.of_difference(found))
        return
    from celery_agents.cli.output.terminal import make_console

    _print(make_console(ctx), found)


def _print(console: "Console", found: "Difference") -> None:
    from rich.text import Text

    from celery_agents.cli.output.rendering import say

    say(console, Text(f"a  {one_line(found.a)}\nb  {one_line(found.b)}"))
    if not found:
        say(console, Text(f"They do not differ: {counted(found.alike, 'step')}."))
        return
    say(console, Text(f"{counted(found.alike, 'step')} alike, {counted(len(found.steps), 'step')} not."))
    for field in found.fields:
        _print_pair(console, field.field, compact(field.a), compact(field.b))
    for step in found.steps:
        _print_pair(console, _title(step), _side(step, step.a), _side(step, step.b))


def _title(step: "StepDifference") -> str:
    numbers = [str(one.step_number) for one in (step.a, step.b) if one is not None]
    return f"step {' / '.join(dict.fromkeys(numbers))}, {one_line(step.key)}"


def _side(difference: "StepDifference", step: "AgentStep | None") -> "Text | str | None":
    from celery_agents.cli.output.rendering import result_text
    from celery_agents.replay import StepChange

    if step is None:
        return None
    if difference.change is StepChange.ACTION:
        action = step.action
        return one_line(
            f"{action.kind} {action.tool or ''} {_shown(action.input)} {action.thought or action.title or ''}"
        )
    return result_text(step)


def _shown(value: JSONValue) -> str:
    return "" if value is None else compact(value)


def _print_pair(console: "Console", title: str, a: "Text | str | None", b: "Text | str | None") -> None:
    from rich.text import Text

    from celery_agents.cli.output.rendering import say

    say(console, Text())
    say(console, Text(title, style="bold"))
    for sign, style, side in (("-", "red", a), ("+", "green", b)):
        if side is not None:
            say(console, Text(f"{sign} ", style=style) + (side if isinstance(side, Text) else Text(side, style=style)))
