"""`benchmarks.bare` with the tasks that wait: `celery -A benchmarks.bare_waiting worker`."""

from benchmarks.bare import app

app.conf.update(imports=("benchmarks.waiting",))
