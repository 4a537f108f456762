"""An app that runs agents and is otherwise as `benchmarks.bare`: no events, no results."""

from benchmarks.bare import app
from celery_agents.host.install import install

app.conf.update(imports=("benchmarks.tasks", "benchmarks.agents"), agents_events=False)
install(app)
