"""URLs without their passwords, for messages and logs.

A URL that is shown in a message is often one that could not be read. So nothing here relies on its being well-formed:
where it is not clear what belongs to a password, everything that may is hidden, even if a host is hidden with it.
"""

import re
from typing import Final
from urllib.parse import quote, unquote

_MASK: Final = "***"

# Drivers also take secrets as options: password, sslpassword, ssl_keyfile_password, ... and cloud storage takes
# `AccountKey=...;` and `sig=...` in place of a login. A ; ends a value only where the next option begins.
_SECRET_OPTION: Final = re.compile(
    r"([?&;/](?:[^=&;?/#]*(?:passw(?:or)?d|passphrase|secret|token|access_?key|account_?key|signature)[^=&;?/#]*"
    r"|pwd|sig)=)[^&;]*(?:;(?![\w.-]+=)[^&;]*)*",
    re.IGNORECASE,
)
# A percent-encoded URL as the value of an option.
_INNER_URL: Final = re.compile(r"(?<==)[^&=#]*%3A(?:%2F|/){2}[^&#]*", re.IGNORECASE)
# Between the URLs of a list, and before one that is the value of an option.
_NEXT_URL: Final = re.compile(r"(?<=[;,=\s])(?=[A-Za-z][\w+.-]*://)")
# Redis knows no user without a password: what stands alone before the @ is a password whose colon was forgotten.
_REDIS_USER: Final = re.compile(r"(\b(?:rediss?|sentinel|valkeys?)(?:\+\w+)?://)[^:/?#@]+(?=@)", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[^:/?#@]*://")
# These name files, in whose paths : and @ mean nothing.
_FILE: Final = re.compile(r"(?:db\+)?sqlite\b|file(?:system)?:")
# Host and port, or several. What else stands behind the colon is no port: it may be a password without its host.
_HOST: Final = r"(?:\[[^\]/?#@]*\]|[^:/?#@,;\[\]]*)(?::\d*)?"
_HOSTS: Final = re.compile(rf"{_HOST}(?:[,;]{_HOST})*(?=[/?#]|[.)\]'\"]*(?:\s|$))")
# Options whose values may hold an @ that ends no login: behind a host, with or without port and path.
_OPTIONS: Final = re.compile(rf"(?!:){_HOST}(?:[,;]{_HOST})*(?:/[^?#@]*)?\?[\w.-]+=")


def masked(url: str) -> str:
    """Return the URL without its password, for messages; also if it is malformed, or names several hosts.

    Several URLs, separated by commas, semicolons or spaces, are masked one by one.
    """
    url = _REDIS_USER.sub(rf"\1{_MASK}", url)
    url = _INNER_URL.sub(lambda inner: quote(masked(unquote(inner[0])), safe="*"), url)
    starts = [0, *(place.start() for place in _NEXT_URL.finditer(url) if place.start())]
    parts = [url[start:end] for start, end in zip(starts, [*starts[1:], len(url)], strict=True)]
    return _SECRET_OPTION.sub(rf"\1{_MASK}", "".join(_without_login(part) for part in parts))


def _without_login(url: str) -> str:
    scheme = _SCHEME.match(url)
    start = scheme.end() if scheme else 0
    rest = url[start:]
    colon = rest.find(":")
    if colon < 0 or _FILE.match(url) or _OPTIONS.match(rest):
        return url
    shown = url[: start + colon + 1] + _MASK
    end = rest.rfind("@")
    if colon < end:
        # Up to the last @: an earlier one, like any / ? or #, may be part of a password that was not escaped.
        return shown + rest[end:]
    return shown if scheme and end < 0 and not _HOSTS.match(rest) else url
