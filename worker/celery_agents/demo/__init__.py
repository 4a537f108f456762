"""The crash story: `python -m celery_agents.demo` kills a worker and proves that its execution goes on."""
