"""Imported by a worker: it soon asks a cold store again that was away, and a test need not wait for half a minute."""

from agent_statestore.hybrid import outage
from tests.crash.patching import put

put(outage, "RETRY_SECONDS", 1.0)
