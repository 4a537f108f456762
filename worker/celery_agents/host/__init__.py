"""Everything that knows Celery: the tasks, recovery, the parts of a worker."""
