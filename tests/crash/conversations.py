"""Executions that have a conversation together: each adds to what those before it have said."""

import time

from celery_agents import Run, agent

PARTS = 3


@agent(name="crash.talking", session_policy="queue")
def talking(run: Run, number: int) -> list[str]:
    """Say a few things, each after a step, and return what was said before."""
    session = run.session
    session.say("user", f"{number}?")
    for part in range(PARTS):
        session.say("assistant", run.step("answer", answer, number, part))
    return [str(message.content) for message in session.history]


def answer(number: int, part: int) -> str:
    """Take a while."""
    time.sleep(0.1)
    return f"{number}.{part}"


def said_by(number: int) -> list[str]:
    """Return what one execution says."""
    return [f"{number}?", *(f"{number}.{part}" for part in range(PARTS))]
