"""The votes on an approval that several people decide. They stay in the mailbox until they have decided it.

Each vote is a signal of its own address (`vote_key`), so the store lets nobody vote twice, and lets in nobody else. A
vote that does not decide wakes the execution, which pauses again and shows who has voted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from agent_statestore.records import JSONValue, Result, Signal, SignalKind, vote_key
from celery_agents.define.voting import Voting
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.pauses.signal import unproven

# Returns the decision that a signal carries, or what is wrong with it.
Judge = Callable[[Signal], Result | list[str]]


@dataclass(slots=True)
class Ballot:
    """The votes that have come in one round, in the order in which they were sent.

    Attributes:
        cast: those that count, and whether each approves.
        bad: the first one that does not count, and what is wrong with it.
        is_approved: what they have decided; None if nothing yet. Later votes say nothing any more.
    """

    attempt: Attempt
    voting: Voting
    key: str
    round: int
    cast: list[tuple[Signal, bool]] = field(default_factory=list)
    bad: tuple[Signal, list[str]] | None = None
    is_approved: bool | None = None

    def count(self, judge: Judge) -> None:
        """Look at what has come."""
        for signal in self._found():
            judged = unproven(self.attempt, signal) or judge(signal)
            if isinstance(judged, Result) and self.voting.quorum > 1 and _is_edited(judged):
                judged = ["where several decide, nobody changes the arguments"]
            if not isinstance(judged, Result):
                self.bad = (signal, list(judged))
                return
            self.cast.append((signal, judged.success))
            approved = sum(approves for _, approves in self.cast)
            if approved >= self.voting.quorum:
                self.is_approved = True
                return
            if self.voting.is_rejected(len(self.cast) - approved):
                self.is_approved = False
                return

    def _found(self) -> list[Signal]:
        addresses = {vote_key(self.key, voter): voter for voter in self.voting.approvers}
        with_names = (self.attempt.mailbox.find(SignalKind.APPROVAL, address, self.round) for address in addresses)
        found = [signal for signal in with_names if signal is not None]
        order = {signal.signal_id: place for place, signal in enumerate(self.attempt.mailbox.signals)}
        return sorted(found, key=lambda signal: order.get(signal.signal_id, len(order)))

    @property
    def voters(self) -> tuple[str, ...]:
        """Who has not voted yet."""
        voted = {signal.key for signal, _ in self.cast}
        return tuple(voter for voter in self.voting.approvers if vote_key(self.key, voter) not in voted)

    def shown(self) -> dict[str, JSONValue]:
        """Return what a person is shown of it."""
        return {
            "approvers": list(self.voting.approvers),
            "quorum": self.voting.quorum,
            "rejections": self.voting.rejections,
            "votes": self.votes(),
        }

    def votes(self) -> list[JSONValue]:
        """Return the votes that were cast."""
        return [
            {
                "by": signal.sender,
                "approved": approves,
                "reason": signal.reason,
                "at": None if signal.sent_at is None else signal.sent_at.isoformat(),
                "channel": signal.channel,
                "os_user": signal.os_user,
            }
            for signal, approves in self.cast
        ]

    def deciding(self) -> list[Signal]:
        """Return the votes that made the decision, the last one last."""
        return [signal for signal, approves in self.cast if approves is self.is_approved]

    def take(self) -> None:
        """Take all votes of the round: it is decided, or asked anew."""
        for voter in self.voting.approvers:
            self.attempt.mailbox.discard(SignalKind.APPROVAL, vote_key(self.key, voter), self.round)


def _is_edited(judged: Result) -> bool:
    return judged.success and judged.output["arguments"] is not None
