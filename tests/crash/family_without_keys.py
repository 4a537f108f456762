"""Imported by a worker: nothing ties a child to the step that starts it. So the tests of children are seen to fail."""

from uuid import uuid4

from celery_agents.lifecycle import keys
from tests.crash.patching import put

put(keys, "of_child", lambda parent_id, step: f"{keys.RESERVED}child:{parent_id}/{uuid4().hex}/{step}")
