"""What the holder of a lease hears of an execution; see `MailPrimitives`."""

from collections.abc import Sequence

from agent_statestore.codec.signals import INTERRUPTING, decode_mailbox
from agent_statestore.contract.mail import Heard
from agent_statestore.records import Lease, Signal
from agent_statestore.redis import answers
from agent_statestore.redis.keys import MAILBOX, SIGNALS, Keys
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.rules.hearing import HolderStanding, heard
from agent_statestore.states import AgentState
from agent_statestore.store import Store


class RedisMail(Store):
    """The primitives of `MailPrimitives`."""

    _connection: Connection
    _keys: Keys

    def get_mailbox(self, execution_id: str) -> tuple[Signal, ...]:
        state, *mail = self._mail_of(execution_id)
        if not state or AgentState(answers.text(state)).is_over:
            return ()
        return decode_mailbox(execution_id, mail[1::3])

    def hear(self, leases: Sequence[Lease]) -> Heard:
        commands: list[tuple[str | bytes | int, ...]] = []
        for lease in leases:
            own = self._keys.own(lease.execution_id)
            commands.append(("HMGET", own[0], "token", "lease_until_us", "cancel_requested"))
            commands.append(("HGET", own[SIGNALS], f"n{INTERRUPTING}"))
        found = self._connection.send_each(commands)
        standings = []
        for lease, (token, until_us, cancelled), waiting in zip(leases, found[::2], found[1::2], strict=True):
            if token is not None:
                mail = self._addresses_of(lease.execution_id) if int(waiting or 0) > 0 else {}
                standings.append(
                    HolderStanding(lease.execution_id, int(token), int(until_us or 0), int(cancelled or 0), mail)
                )
        return heard(leases, standings)

    def _addresses_of(self, execution_id: str) -> dict[str, str]:
        _, *mail = self._mail_of(execution_id)
        addresses = zip(mail[::3], mail[2::3], strict=True)
        return {answers.text(signal_id): answers.text(address) for signal_id, address in addresses}

    def _mail_of(self, execution_id: str) -> list[str | bytes]:
        own = self._keys.own(execution_id)
        keys = (own[0], own[MAILBOX], own[SIGNALS])
        found: list[str | bytes] = self._connection.run(script("read_mailbox"), keys, ())
        return found
