"""What the holder of a lease does and hears: an execution that is worked on is in the hot store."""

from collections.abc import Sequence
from datetime import timedelta

from agent_statestore.contract.mail import Heard
from agent_statestore.records import Claim, Lease, Renewed, Signal
from agent_statestore.store import Store


class HybridLeases(Store):
    """The primitives on leases; see `StorePrimitives` and `MailPrimitives`."""

    hot: Store

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        return self.hot.claim(execution_id, owner, ttl)

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        return self.hot.renew(leases, ttl)

    def release(self, lease: Lease, *, crashed: bool = False) -> bool:
        return self.hot.release(lease, crashed=crashed)

    def forgive(self, lease: Lease, crashes: int) -> bool:
        return self.hot.forgive(lease, crashes)

    def find_leases(self, owner_prefix: str) -> tuple[Lease, ...]:
        return self.hot.find_leases(owner_prefix)

    def get_mailbox(self, execution_id: str) -> tuple[Signal, ...]:
        return self.hot.get_mailbox(execution_id)

    def hear(self, leases: Sequence[Lease]) -> Heard:
        return self.hot.hear(leases)
