"""An execution from the outside: created, told something, cancelled, deleted. Knows nothing of Celery."""
