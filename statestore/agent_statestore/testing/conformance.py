"""The suite, composed of its parts."""

from agent_statestore.store import Store
from agent_statestore.testing.contract.alike import AlikeConformance
from agent_statestore.testing.contract.archiving import ArchivingConformance
from agent_statestore.testing.contract.arriving import ArrivingConformance
from agent_statestore.testing.contract.auditing import AuditConformance
from agent_statestore.testing.contract.bounds import BoundsConformance
from agent_statestore.testing.contract.chaining import ChainingConformance
from agent_statestore.testing.contract.checkpoints import CheckpointConformance
from agent_statestore.testing.contract.contents import ContentsConformance
from agent_statestore.testing.contract.creating import CreatingConformance
from agent_statestore.testing.contract.damage import DamageConformance
from agent_statestore.testing.contract.deciding import DecisionConformance
from agent_statestore.testing.contract.digests import DigestConformance
from agent_statestore.testing.contract.documents import DocumentConformance
from agent_statestore.testing.contract.duties import DutyConformance
from agent_statestore.testing.contract.ending import EndingConformance
from agent_statestore.testing.contract.fencing import FencingConformance
from agent_statestore.testing.contract.finding import FindingConformance
from agent_statestore.testing.contract.formats import FormatConformance
from agent_statestore.testing.contract.holding import HoldingConformance
from agent_statestore.testing.contract.leases import LeaseConformance
from agent_statestore.testing.contract.moving import MovingConformance
from agent_statestore.testing.contract.purging import KeepsDeletedConformance, PurgingConformance
from agent_statestore.testing.contract.races import RaceConformance
from agent_statestore.testing.contract.rates import RateConformance
from agent_statestore.testing.contract.removal_races import RemovalRaceConformance
from agent_statestore.testing.contract.removing import RemovingConformance
from agent_statestore.testing.contract.ringing import RingingConformance
from agent_statestore.testing.contract.saying import SayingConformance
from agent_statestore.testing.contract.sealing import SealingConformance
from agent_statestore.testing.contract.shared import NeighbourConformance, SharedConformance
from agent_statestore.testing.contract.signals import SignalConformance
from agent_statestore.testing.contract.streams import StreamConformance
from agent_statestore.testing.contract.together import TogetherConformance
from agent_statestore.testing.contract.transitions import TransitionConformance
from agent_statestore.testing.contract.vectors import VectorConformance
from agent_statestore.testing.contract.waits import WaitsConformance
from agent_statestore.testing.contract.watching import WatchingConformance

__all__ = [
    "DamageConformance",
    "KeepsDeletedConformance",
    "NeighbourConformance",
    "SharedStoreConformance",
    "StoreConformance",
]


class StoreConformance(
    CreatingConformance,
    FindingConformance,
    AlikeConformance,
    LeaseConformance,
    FencingConformance,
    CheckpointConformance,
    ChainingConformance,
    TogetherConformance,
    ContentsConformance,
    TransitionConformance,
    EndingConformance,
    SignalConformance,
    SayingConformance,
    BoundsConformance,
    RingingConformance,
    RateConformance,
    DutyConformance,
    DocumentConformance,
    HoldingConformance,
    VectorConformance,
    StreamConformance,
    RemovingConformance,
    PurgingConformance,
    AuditConformance,
    DecisionConformance,
    MovingConformance,
    DigestConformance,
    ArrivingConformance,
    ArchivingConformance,
    WaitsConformance,
    WatchingConformance,
    FormatConformance,
    SealingConformance,
    RaceConformance,
    RemovalRaceConformance,
):
    """The rules for any store. Override `store`."""

    def test_a_shared_store_is_held_against_the_shared_suite(self, store: Store) -> None:
        assert store.is_shared == isinstance(self, SharedConformance)

    def test_a_store_that_keeps_what_was_deleted_is_held_against_that_suite(self, store: Store) -> None:
        assert store.keeps_deleted == isinstance(self, KeepsDeletedConformance)


class SharedStoreConformance(SharedConformance, StoreConformance):
    """The rules for a store that several processes see. Override `reopen`."""
