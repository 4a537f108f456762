# One image for worker, Flower and migrations. Agents of your own: build on it, or mount them into /app.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY statestore ./statestore
COPY worker ./worker
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir '.[redis,postgresql,flower]'

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 agents && install --directory --owner=agents /app /data
COPY --from=build /venv /venv
COPY --chown=agents flowerconfig.py /app/
COPY --chown=agents examples /app/examples
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 AGENTS_HOME=/data
USER agents
WORKDIR /app
CMD ["celery", "-A", "celery_agents", "worker", "--loglevel=INFO", "--task-events"]
