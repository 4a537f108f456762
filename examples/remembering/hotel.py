"""Three desks of one hotel. Each call is an execution of its own; what is known of a guest comes from the memory.

The desk with a buffer knows the conversation, and sums up what becomes too long. The one with vectors knows the facts
that matter for what is asked, in whatever conversation they were said. The one with both knows both.

    concierge.enqueue("I am allergic to peanuts", session_id="monday", user_id="ada")
    concierge.enqueue("Is there something with almonds?", session_id="friday", user_id="ada")
"""

from collections.abc import Sequence

from agent_statestore.documents.sessions import SessionMessage
from celery_agents import BufferMemory, HybridMemory, Run, VectorMemory, agent
from examples.remembering.embedding import embed

# What a guest says of these is worth to be kept.
TELLING = ("i am", "i like", "i prefer", "i arrive")


def sum_up(summary: str | None, messages: Sequence[SessionMessage]) -> str:
    """Return a summary. A model would write a better one."""
    said = [str(message.content) for message in messages if message.role == "user"]
    return "; ".join([summary, *said] if summary else said)


def facts_in(message: str) -> list[str]:
    """Return what a message tells of its guest. A model would find more."""
    return [sentence.strip() for sentence in message.split(".") if sentence.strip().lower().startswith(TELLING)]


BUFFER = BufferMemory(max_tokens=20, summarise=sum_up)
VECTOR = VectorMemory(embed=embed, scopes=("user",), least=0.5)


def answered(run: Run, message: str) -> str:
    """Return what a model is asked: the message, and what is known. Keep what the message tells."""
    known = str(run.recall(message, k=3))
    for fact in run.step("extract", facts_in, message):
        run.remember(fact, scope="user")
    return known


@agent(memory=BUFFER)
def desk(run: Run, message: str) -> str:
    """Answer with the conversation in mind."""
    run.session.say("user", message)
    known = str(run.recall(message))
    run.session.say("assistant", "Noted.")
    return known


@agent(memory=VECTOR)
def kitchen(run: Run, message: str) -> str:
    """Answer with all facts in mind that the guest has ever told, to whichever desk."""
    return answered(run, message)


@agent(memory=HybridMemory(BUFFER, VECTOR))
def concierge(run: Run, message: str) -> str:
    """Answer with both in mind."""
    run.session.say("user", message)
    known = answered(run, message)
    run.session.say("assistant", "Noted.")
    return known
