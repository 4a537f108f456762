"""The suite, composed of its parts."""

from statestore.operations import Store
from statestore.testing.alike import AlikeConformance
from statestore.testing.archiving import ArchivingConformance
from statestore.testing.arriving import ArrivingConformance
from statestore.testing.auditing import AuditConformance
from statestore.testing.chaining import ChainingConformance
from statestore.testing.checkpoints import CheckpointConformance
from statestore.testing.contents import ContentsConformance
from statestore.testing.creating import CreatingConformance
from statestore.testing.deciding import DecisionConformance
from statestore.testing.digests import DigestConformance
from statestore.testing.ending import EndingConformance
from statestore.testing.fencing import FencingConformance
from statestore.testing.finding import FindingConformance
from statestore.testing.formats import FormatConformance
from statestore.testing.leases import LeaseConformance
from statestore.testing.moving import MovingConformance
from statestore.testing.purging import KeepsDeletedConformance, PurgingConformance
from statestore.testing.races import RaceConformance
from statestore.testing.rates import RateConformance
from statestore.testing.removal_races import RemovalRaceConformance
from statestore.testing.removing import RemovingConformance
from statestore.testing.ringing import RingingConformance
from statestore.testing.shared import NeighbourConformance, SharedConformance
from statestore.testing.signals import SignalConformance
from statestore.testing.transitions import TransitionConformance
from statestore.testing.watching import WatchingConformance

__all__ = ["KeepsDeletedConformance", "NeighbourConformance", "SharedStoreConformance", "StoreConformance"]


class StoreConformance(
    CreatingConformance,
    FindingConformance,
    AlikeConformance,
    LeaseConformance,
    FencingConformance,
    CheckpointConformance,
    ChainingConformance,
    ContentsConformance,
    TransitionConformance,
    EndingConformance,
    SignalConformance,
    RingingConformance,
    RateConformance,
    RemovingConformance,
    PurgingConformance,
    AuditConformance,
    DecisionConformance,
    MovingConformance,
    DigestConformance,
    ArrivingConformance,
    ArchivingConformance,
    WatchingConformance,
    FormatConformance,
    RaceConformance,
    RemovalRaceConformance,
):
    """What holds for any store. Override `store`."""

    def test_a_shared_store_is_held_against_the_shared_suite(self, store: Store) -> None:
        assert store.is_shared == isinstance(self, SharedConformance)

    def test_a_store_that_keeps_what_was_deleted_is_held_against_that_suite(self, store: Store) -> None:
        assert store.keeps_deleted == isinstance(self, KeepsDeletedConformance)


class SharedStoreConformance(SharedConformance, StoreConformance):
    """What holds for a store that several processes see. Override `reopen`."""
