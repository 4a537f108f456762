"""What must hold of an execution after any crash."""

from collections import defaultdict
from collections.abc import Collection

from agent_statestore import AgentContext, AgentState
from tests.crash.agents import Plan, undisturbed
from tests.crash.ledger import STARTED, Ledger


def check_execution(
    context: AgentContext, plan: Plan, ledger: Ledger, *, repeated: Collection[int] | None = ()
) -> None:
    """Raises AssertionError unless the execution ended as an undisturbed one does.

    `repeated` names the steps whose function was in flight in a process that died, and so was called once more; None
    if the test cannot know which. All other functions were called exactly once.
    """
    check_contents(context, plan)
    _check_calls(context, plan, ledger, repeated)


def check_contents(context: AgentContext, plan: Plan) -> None:
    """Raises AssertionError unless what is recorded is what an undisturbed execution records."""
    about = f"execution {context.execution_id}"
    digests = undisturbed(plan)
    assert context.state is AgentState.COMPLETED, f"{about} is {context.state}: {context.error}"
    assert context.output == digests[-1], f"{about} has the output of another execution"
    numbers = [step.step_number for step in context.steps]
    assert numbers == list(range(1, plan.steps + 1)), f"{about}: step numbers {numbers}"
    keys = [step.name for step in context.steps]
    assert keys == ["link", *(f"link#{number}" for number in range(2, plan.steps + 1))], f"{about}: step keys {keys}"
    results = [step.result.output if step.result is not None else None for step in context.steps]
    assert results == digests, f"{about}: step results"
    attempts = [step.attempt for step in context.steps]
    assert attempts == sorted(attempts), f"{about}: an older attempt wrote after a newer one: {attempts}"
    assert attempts[-1] <= context.attempt, f"{about}: attempts {attempts}, of {context.attempt}"
    assert [message.content for message in context.memory.conversation_history] == digests, f"{about}: messages"
    assert context.memory.working_memory == {
        f"link {number}": digest for number, digest in enumerate(digests, start=1)
    }, f"{about}: working memory"
    assert context.version == plan.steps + 1, f"{about}: {context.version} writes for {plan.steps} steps and an end"
    # A recorded step clears the count; only claims that found nothing left to do but the end may still be in it.
    assert context.crashes <= context.attempt - attempts[-1], f"{about}: {context.crashes} crashes are still counted"
    assert context.owner is None, f"{about}: its lease is still held by {context.owner}"


def _check_calls(context: AgentContext, plan: Plan, ledger: Ledger, repeated: Collection[int] | None) -> None:
    """Each function was called by the attempt that recorded its step, and besides only by one that died in it."""
    about = f"execution {context.execution_id}"
    calls = [(row.attempt, row.number) for row in ledger.rows(STARTED, context.execution_id)]
    last_of_attempt = dict(calls)
    called_by: dict[int, list[int]] = defaultdict(list)
    for attempt, number in calls:
        called_by[number].append(attempt)
    for step in context.steps:
        attempts = called_by[step.step_number]
        said = f"{about}: step {step.step_number}, recorded in attempt {step.attempt}, was called in {attempts}"
        assert attempts.count(step.attempt) == 1, said
        for attempt in attempts:
            assert attempt <= step.attempt, f"{said}: again after it was recorded"
            if attempt < step.attempt:
                assert last_of_attempt[attempt] == step.step_number, f"{said}: it was not in flight at the death"
                assert attempts.count(attempt) == 1, f"{said}: twice in one attempt"
    if repeated is not None:
        expected = {number: 2 if number in repeated else 1 for number in range(1, plan.steps + 1)}
        assert {number: len(attempts) for number, attempts in sorted(called_by.items())} == expected, f"{about}: calls"
