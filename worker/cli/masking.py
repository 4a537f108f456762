"""Secrets in URLs are not shown."""

import re
from typing import Final

from statestore.opening import masked

_SECRET_OPTION: Final = re.compile(r"(?i)([?&][^=&]*(?:password|passwd|secret|token)[^=&]*=)[^&]*")


def without_secrets(text: str) -> str:
    """The text, with the passwords masked where it is a URL, or several, separated by semicolons as for Celery."""
    return ";".join(_SECRET_OPTION.sub(r"\1***", _masked(url)) for url in text.split(";"))


def _masked(url: str) -> str:
    try:
        return masked(url)
    except ValueError:  # no URL at all: show nothing that might be half a password
        return f"{url.partition('://')[0]}://***"
