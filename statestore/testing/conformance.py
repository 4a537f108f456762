"""The suite, composed of its parts."""

from statestore.operations import Store
from statestore.testing.checkpoints import CheckpointConformance
from statestore.testing.contents import ContentsConformance
from statestore.testing.creating import CreatingConformance
from statestore.testing.fencing import FencingConformance
from statestore.testing.finding import FindingConformance
from statestore.testing.formats import FormatConformance
from statestore.testing.leases import LeaseConformance
from statestore.testing.races import RaceConformance
from statestore.testing.removing import RemovingConformance
from statestore.testing.ringing import RingingConformance
from statestore.testing.shared import NeighbourConformance, SharedConformance
from statestore.testing.signals import SignalConformance
from statestore.testing.transitions import TransitionConformance

__all__ = ["NeighbourConformance", "SharedStoreConformance", "StoreConformance"]


class StoreConformance(
    CreatingConformance,
    FindingConformance,
    LeaseConformance,
    FencingConformance,
    CheckpointConformance,
    ContentsConformance,
    TransitionConformance,
    SignalConformance,
    RingingConformance,
    RemovingConformance,
    FormatConformance,
    RaceConformance,
):
    """What holds for any store. Override `store`."""

    def test_a_shared_store_is_held_against_the_shared_suite(self, store: Store) -> None:
        assert store.is_shared == isinstance(self, SharedConformance)


class SharedStoreConformance(SharedConformance, StoreConformance):
    """What holds for a store that several processes see. Override `reopen`."""
