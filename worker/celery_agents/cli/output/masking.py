"""Secrets in URLs are not shown."""

from agent_statestore.masking import masked


def without_secrets(text: str) -> str:
    """The text, with the passwords masked where it is a URL, or several, separated by semicolons as for Celery."""
    return ";".join(masked(url) for url in text.split(";"))
