"""Where executions are kept: what the URL of a store takes besides a server."""

from urllib.parse import quote

from agent_statestore.sql import SQLStore


def hybrid_url(hot: str, cold: str) -> str:
    """One store over another."""
    return f"hybrid:///?hot={quote(hot, safe='')}&cold={quote(cold, safe='')}"


def migrated(url: str) -> str:
    """The database at the URL, once it has our schema."""
    with SQLStore(url) as store:
        store.migrate()
    return url
