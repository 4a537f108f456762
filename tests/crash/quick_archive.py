"""Imported by a worker: it soon asks a cold store again that was away, and a test need not wait for half a minute."""

from agent_statestore.hybrid import outage

outage.RETRY_SECONDS = 1.0  # type: ignore[misc]
