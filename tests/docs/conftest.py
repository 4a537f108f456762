import pytest

from tests.celery_agents.driving import Engine


@pytest.fixture
def engine() -> Engine:
    """An engine on an in-memory store."""
    return Engine()
