"""The opener of `hybrid:` URLs."""

from datetime import timedelta
from urllib.parse import parse_qsl

from agent_statestore.clock import Clock
from agent_statestore.drivers.masking import masked
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.errors import UnsupportedURL
from agent_statestore.hybrid.store import HybridStore
from agent_statestore.opening import open_store

_OPTIONS = ("hot", "cold", "archive_after")


def open_hybrid(url: str, *, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES, clock: Clock | None = None) -> HybridStore:
    """Return the store at `hybrid:///?hot=URL&cold=URL&archive_after=SECONDS`.

    The two URLs are those of other stores, percent-encoded (`urllib.parse.quote(url, safe="")`). `archive_after` (0) is
    how long after its end an execution is archived. Raise `UnsupportedURL`, `UnknownScheme` and `MissingDriver`.
    """
    options = options_of(url)
    archive_after = _seconds(url, options.get("archive_after", "0"))
    hot = open_store(options["hot"], max_value_bytes=max_value_bytes, clock=clock)
    cold = open_store(options["cold"], max_value_bytes=max_value_bytes, clock=clock)
    return HybridStore(hot, cold, archive_after=archive_after)


def options_of(url: str) -> dict[str, str]:
    """Return the options of a `hybrid:` URL, `hot` and `cold` among them. Raise `UnsupportedURL`."""
    place, _, query = url.partition("?")
    if place.rstrip("/") != "hybrid:":
        raise UnsupportedURL(masked(url), "write hybrid:///?hot=URL&cold=URL, both percent-encoded")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS or name in options:
            fault = "is given twice" if name in options else f"is unknown; known: {', '.join(_OPTIONS)}"
            raise UnsupportedURL(masked(url), f"option {name!r} {fault}; are both URLs percent-encoded?")
        options[name] = value
    for name in ("hot", "cold"):
        if not options.get(name):
            raise UnsupportedURL(masked(url), f"option {name!r} is missing")
    return options


def _seconds(url: str, text: str) -> timedelta:
    try:
        duration = timedelta(seconds=float(text))
    except (ValueError, OverflowError) as error:
        raise UnsupportedURL(masked(url), f"archive_after needs a number of seconds, not {text!r}") from error
    if duration < timedelta(0):
        raise UnsupportedURL(masked(url), "archive_after must not be negative")
    return duration
