"""The agent that the workers execute while they are killed.

Each result is made from the one before, so a lost, repeated or swapped step changes the output.
"""

import hashlib
import os
import signal
import time

import pydantic

from celery_agents import Run, agent
from tests.crash.ledger import RETURNED, STARTED, Ledger


class Plan(pydantic.BaseModel):
    """The input: how many steps, at which of them to wait for the test, and how long each of the others takes."""

    steps: int = 6
    hold: tuple[int, ...] = ()
    step_seconds: float = 0.0
    seed: str = "seed"


@agent(name="crash.chain", max_attempts=50)
def chain(run: Run, input: Plan) -> str:
    """A chain of links, each of which is a step, a message and a value of the working memory."""
    digest = input.seed
    for number in range(1, input.steps + 1):
        digest = run.step("link", link, run.execution_id, run.attempt, number, digest, input)
        run.say("agent", digest)
        run.memory[f"link {number}"] = digest
    return digest


def link(execution_id: str, attempt: int, number: int, previous: str, plan: Plan) -> str:
    """The step function: tells the ledger, and waits."""
    ledger = Ledger.of_this_worker()
    ledger.note(STARTED, execution_id, number, attempt)
    if number in plan.hold:
        ledger.wait_at_gate(execution_id, number)
    else:
        time.sleep(plan.step_seconds)
    ledger.note(RETURNED, execution_id, number, attempt)
    return next_digest(previous, number)


@agent(name="crash.poison", max_attempts=3)
def poison(run: Run, input: None) -> None:
    """Takes down every process that executes it."""
    del input
    run.step("die", die, run.execution_id, run.attempt)


def die(execution_id: str, attempt: int) -> None:
    """The step function of `poison`."""
    Ledger.of_this_worker().note(STARTED, execution_id, 1, attempt)
    os.kill(os.getpid(), signal.SIGKILL)


def next_digest(previous: str, number: int) -> str:
    """The result of link `number`."""
    return hashlib.sha256(f"{previous}/{number}".encode()).hexdigest()


def undisturbed(plan: Plan) -> list[str]:
    """The results of all links, as an execution without any fault has them; the last one is the output."""
    digests = []
    digest = plan.seed
    for number in range(1, plan.steps + 1):
        digest = next_digest(digest, number)
        digests.append(digest)
    return digests
