"""Imported by a worker: nothing ties a child to the step that starts it. So the tests of children are seen to fail."""

from uuid import uuid4

from celery_agents.lifecycle import relatives
from tests.crash.patching import put

put(relatives, "_key_of", lambda parent_id, step: f"{parent_id}/{uuid4().hex}/{step}")
