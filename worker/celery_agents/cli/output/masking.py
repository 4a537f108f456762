"""Hiding the secrets in URLs."""

from agent_statestore.masking import masked


def without_secrets(text: str) -> str:
    """Return the text with passwords masked, if it is a URL, or several separated by semicolons as in Celery."""
    return ";".join(masked(url) for url in text.split(";"))
