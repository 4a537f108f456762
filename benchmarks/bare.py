"""A Celery app without changes: no events, no agents, and results only if asked. `celery -A benchmarks.bare worker`."""

import os

from celery import Celery

app = Celery("bare", broker=os.environ.get("BENCHMARK_BROKER_URL", "memory://"))
app.conf.update(
    imports=("benchmarks.tasks",),
    broker_connection_retry_on_startup=True,
    result_backend=os.environ.get("BENCHMARK_RESULT_BACKEND"),
)
