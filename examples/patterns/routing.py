"""A graph with conditions is plain Python: `if`, `while` and functions that work on recorded results.

A resumed execution takes the same way again, because it decides on the same recorded results.
"""

from enum import StrEnum

from celery_agents import Run, agent

BILLING = ("invoice", "refund", "paid")
TECHNICAL = ("error", "crash", "slow")


class Topic(StrEnum):
    """The topic of a ticket."""

    BILLING = "billing"
    TECHNICAL = "technical"
    UNCLEAR = "unclear"


@agent
def ticket(run: Run, text: str) -> str:
    """Route a support ticket; ask back for as long as its topic is unclear."""
    while (topic := run.step("classify", classify, text)) is Topic.UNCLEAR:
        text = run.ask("Is this about an invoice, or about an error?", schema=str)
    if topic is Topic.BILLING:
        return run.step("look up invoice", look_up_invoice, text)
    severity = run.step("judge severity", judge_severity, text)
    if severity > 1:
        run.say("assistant", "Somebody is being called.")
        return run.step("call somebody", call_somebody, text)
    return run.step("search manual", search_manual, text)


def classify(text: str) -> Topic:
    """Stand in for a model."""
    words = text.lower().split()
    if any(word in BILLING for word in words):
        return Topic.BILLING
    return Topic.TECHNICAL if any(word in TECHNICAL for word in words) else Topic.UNCLEAR


def look_up_invoice(text: str) -> str:
    """Stand in for the invoices."""
    return f"billing: {text}"


def judge_severity(text: str) -> int:
    """Stand in for another model: 2 means that it cannot wait."""
    return 2 if "crash" in text.lower() else 1


def call_somebody(text: str) -> str:
    """Stand in for a pager."""
    return f"on call: {text}"


def search_manual(text: str) -> str:
    """Stand in for a search."""
    return f"manual: {text}"
