"""URLs without their passwords, for messages and logs."""

import re
from urllib.parse import quote, unquote

# Drivers also take secrets as query parameters: password, sslpassword, ssl_keyfile_password, ...
_QUERY_SECRET = re.compile(r"([?&][^=&]*(?:passw(?:or)?d|secret|token)[^=&]*=)[^&#]*", re.IGNORECASE)

# `scheme://user:password@`, up to the last @ before the path.
_PASSWORD = re.compile(r"([^:/?#]+://[^:/?#@]*:)[^/?#]*@")
# A password in which /, ? or # was not escaped. The text behind the colon is not a port.
_LOOSE_PASSWORD = re.compile(r"([^:/?#]+://[^:/?#@]*:)(?!\d*(?:[/?#,]|$)).*@", re.DOTALL)
# A percent-encoded URL as the value of an option.
_INNER_URL = re.compile(r"(?<==)[^&=#]*%3A(?:%2F|/){2}[^&#]*", re.IGNORECASE)


def masked(url: str) -> str:
    """Return the URL without its password, for messages; also if it is malformed, or names several hosts."""
    url = _INNER_URL.sub(lambda inner: quote(masked(unquote(inner[0])), safe="*"), url)
    url = _QUERY_SECRET.sub(r"\1***", url)
    return (
        _PASSWORD.sub(r"\1***@", url, count=1) if _PASSWORD.match(url) else _LOOSE_PASSWORD.sub(r"\1***@", url, count=1)
    )
