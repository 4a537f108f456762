"""The fixtures of every part of the suite."""

from collections.abc import Iterator

import pytest

from agent_statestore.clock import ManualClock
from agent_statestore.memory import MemoryStore
from agent_statestore.store import Store


class Suite:
    """Base of the parts of the suite: an empty store whose time stands still until the test moves it."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Return the clock of `store`."""
        return ManualClock()

    @pytest.fixture
    def store(self, clock: ManualClock) -> Iterator[Store]:
        """Return an empty store on `clock`. The backend's test class overrides this."""
        raise NotImplementedError("override the fixture `store`")

    @pytest.fixture
    def other_store(self, clock: ManualClock) -> Iterator[Store]:
        """Return an empty store on the same clock, to and from which executions are moved."""
        with MemoryStore(clock=clock) as store:
            yield store
