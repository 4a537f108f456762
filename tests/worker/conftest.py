import pytest

from tests.worker.driving import Calls, Engine


@pytest.fixture
def engine() -> Engine:
    """An engine on an in-memory store."""
    return Engine()


@pytest.fixture
def calls() -> Calls:
    """A ledger of effects."""
    return Calls()
