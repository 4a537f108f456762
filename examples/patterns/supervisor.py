"""A supervisor that delegates: a loop agent with other agents among its tools.

A call of an agent is a separate execution. The supervisor pauses until all executions that it has called are over, and
holds no worker slot meanwhile. A failed worker is a result like any other. Here a rule decides; a model would get
`context.messages` and `context.tools`.
"""

from celery_agents import Complete, LoopAction, LoopContext, Respond, Run, ToolCall, UseTools, agent, loop_agent


@agent
def researcher(run: Run, question: str) -> str:
    """Find out about one question."""
    return run.step("search", search, question)


@agent
def writer(run: Run, findings: list[str]) -> str:
    """Write a report on findings."""
    return run.step("write", write, findings)


@loop_agent(name="supervisor", tools=[researcher, writer], input=list[str], output=str, max_turns=5)
def supervisor(context: LoopContext) -> LoopAction:
    """Answer several questions in one report."""
    results = context.results
    if not results:
        calls = [ToolCall(tool=researcher.name, arguments={"input": question}) for question in context.input]
        return UseTools(calls=calls, text="I let each question be looked into.")
    if results[0].name == "writer":
        return Complete(output=results[0].output, message="Here is the report.")
    found = [result.output for result in results if result.success]
    if not found:
        return Respond(message="Nothing could be found out.")
    return UseTools(calls=[ToolCall(tool=writer.name, arguments={"input": found})])


def search(question: str) -> str:
    """Stand in for a search."""
    if not question.endswith("?"):
        raise ValueError(f"{question!r} is no question")
    return f"{question} Yes."


def write(findings: list[str]) -> str:
    """Stand in for a model."""
    return "\n".join(f"{number}. {finding}" for number, finding in enumerate(findings, 1))
