"""The published clients of the protocols that `celery_agents.http` speaks, as programs that the tests run."""
