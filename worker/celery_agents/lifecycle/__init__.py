"""Executions from the outside: they are created, signalled, cancelled and deleted here. Knows nothing of Celery."""
