"""The executions that an execution has started, as lines of a table."""

from rich.text import Text

from agent_statestore.records import AgentContext, AgentStep
from agent_statestore.store import Store
from celery_agents.cli.output.rendering import result_text, state_text
from celery_agents.cli.output.table import Column, table_lines
from celery_agents.cli.output.text import one_line
from celery_agents.engine.relatives import SPAWN


def children_lines(store: Store, context: AgentContext, limit: int, width: int) -> list[Text]:
    """Return a header and one line for each of the last children: its end as the parent knows it, or its state."""
    started = [step for step in context.steps if step.action.kind == SPAWN and step.result and step.result.success]
    if not started or not limit:
        return []
    ends = {step.action.input: step for step in context.steps if step.action.kind == "child" and step.result}
    columns = (
        Column(name="execution"),
        Column(name="agent", least=8),
        Column(name="step", least=8),
        Column(name="result or state", least=12),
    )
    lines = list(table_lines(columns, [_cells(store, step, ends) for step in started[-limit:]], width))
    if len(started) > limit:
        lines.append(Text(f"and {len(started) - limit} started before", style="dim"))
    return lines


def _cells(store: Store, step: AgentStep, ends: dict[str, AgentStep]) -> list[Text]:
    child = step.result.output if step.result else {}
    child_id = child["execution_id"]
    if child_id in ends:
        stands = result_text(ends[child_id])
    else:
        summary = store.get_summary(child_id)
        stands = Text("gone", style="red") if summary is None else state_text(summary.state)
    return [Text(one_line(child_id)), Text(one_line(child["agent_id"])), Text(one_line(step.name)), stands]
