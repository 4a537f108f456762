"""What the holders of leases hear; see `MailPrimitives.hear`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agent_statestore.codec.signals import INTERRUPTING
from agent_statestore.contract.mail import Heard
from agent_statestore.records import Lease


class HolderStanding(NamedTuple):
    """What a header says of an execution; `mail` has the address of each unconsumed signal."""

    execution_id: str
    token: int
    lease_until_us: int
    cancel_requested: int
    mail: Mapping[str, str]


def heard(leases: Sequence[Lease], standings: Iterable[HolderStanding]) -> Heard:
    """Return what the holders of these leases hear of what was found."""
    found = {standing.execution_id: standing for standing in standings}
    lost: set[str] = set()
    cancelled: set[str] = set()
    interrupts: dict[str, frozenset[str]] = {}
    for lease in leases:
        standing = found.get(lease.execution_id)
        if standing is None or standing.token != lease.token or not standing.lease_until_us:
            lost.add(lease.execution_id)
            continue
        if standing.cancel_requested:
            cancelled.add(lease.execution_id)
        ids = frozenset(signal_id for signal_id, address in standing.mail.items() if address == INTERRUPTING)
        if ids:
            interrupts[lease.execution_id] = ids
    return Heard(lost=frozenset(lost), cancel_requested=frozenset(cancelled), interrupts=interrupts)
