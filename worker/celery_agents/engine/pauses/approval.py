"""An approval of a tool call: bound to the exact arguments, given once, by a person who is recorded.

It is a step of its own before the call's, so that the journal shows who allowed it, and with which arguments.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import Action, JSONValue, Result, Signal, Wait, WaitKind, vote_key
from celery_agents.define import types
from celery_agents.define.names import step_name
from celery_agents.define.tool import Tool
from celery_agents.define.voting import Voting
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.ballot import Ballot
from celery_agents.engine.pauses.open_wait import Awaited, Ended, OpenWait
from celery_agents.engine.pauses.wait import look_for
from celery_agents.errors import ApprovalDenied, ApprovalExpired, JournalMismatch


class Ruling(pydantic.BaseModel):
    """What an approval's signal carries: see `Execution.approve`."""

    model_config = pydantic.ConfigDict(extra="forbid")

    approved: bool
    digest: str
    arguments: dict[str, Any] | None = None


def digest_of(execution_id: str, key: str, tool: str, arguments: Mapping[str, JSONValue], round: int = 1) -> str:  # noqa: A002 - the field's name
    """Return what an approval is bound to: SHA-256 of its execution, key and round, the tool, and its exact arguments.

    So it differs where another execution asks for the same call, or the same one asks again: a page that shows one must
    not approve of another.
    """
    asked = {"arguments": _sorted(dict(arguments)), "execution": execution_id, "key": key, "round": round, "tool": tool}
    text = dump(asked, "arguments")
    return hashlib.sha256(text.encode()).hexdigest()


def _sorted(value: JSONValue) -> JSONValue:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An approval as the code asks for it: of a call of the tool of this name with these arguments.

    `description` and `schema`, a JSON Schema of the arguments, are shown to who decides; `problems` returns what is
    wrong with arguments that he puts in place of these. `voting` says who decides, if not anybody alone.
    """

    tool: str
    arguments: Mapping[str, JSONValue]
    description: str = ""
    schema: dict[str, JSONValue] | None = None
    problems: Callable[[Mapping[str, Any]], list[str]]
    timeout: timedelta | None = None
    voting: Voting | None = None

    @classmethod
    def of_tool(cls, tool: Tool[..., Any], arguments: Mapping[str, JSONValue]) -> "Approval":
        """Return the approval that a tool needs by its own rule."""
        return cls(
            tool=tool.name,
            arguments=arguments,
            description=tool.description,
            schema=tool.json_schema,
            problems=tool.problems,
            timeout=tool.approval_timeout,
            voting=tool.voting,
        )

    def get(self, attempt: Attempt, key: str) -> Mapping[str, JSONValue] | None:
        """The arguments that a person put in place of these, or None for these; unwinds the agent until then.

        `key` is that of its step in the journal.
        Raises `ApprovalDenied`, `ApprovalExpired`, and `JournalMismatch` if the code asks for another call than the
        one that was shown.
        """
        edited: Mapping[str, JSONValue] | None = OpenApproval(self, attempt, key).take()
        return edited


class OpenApproval(OpenWait):
    """An approval at its place."""

    kind = WaitKind.APPROVAL

    def __init__(self, approval: Approval, attempt: Attempt, key: str) -> None:
        action = Action(kind="approval", tool=approval.tool, input=dict(approval.arguments))
        super().__init__(attempt, key, action, timeout=approval.timeout)
        self.approval = approval
        if self.result is not None:
            return
        waiting = attempt.recorder.paused_on.find(WaitKind.APPROVAL, key)
        if waiting is not None:
            shown = waiting.prompt
            if (shown["tool"], _sorted(shown["arguments"])) != (approval.tool, _sorted(dict(approval.arguments))):
                raise JournalMismatch(
                    key,
                    f"a person was shown {shown['arguments']!r}, but the code now calls it with {approval.arguments!r}",
                )

    def look(self, *, is_alone: bool = True) -> Ended | Wait:
        """See `OpenWait`."""
        del is_alone
        attempt, approval, key = self.attempt, self.approval, self.key
        while True:
            execution_id = attempt.context.execution_id
            digest = digest_of(execution_id, key, approval.tool, approval.arguments, self.asked.number)
            ballot = self._ballot(digest)
            waited = look_for(
                attempt,
                WaitKind.APPROVAL,
                key,
                since=self.since,
                wake_at=self.wake_at,
                prompt={
                    "tool": approval.tool,
                    "description": approval.description,
                    "arguments": dict(approval.arguments),
                    "digest": digest,
                    **({} if ballot is None else ballot.shown()),
                },
                schema=approval.schema,
                asked=self.asked,
            )
            if ballot is not None and ballot.bad is not None:
                ballot.take()
                self.asked = self.asked.refuse(attempt, key, self.action, *ballot.bad, self.since)
                continue
            if ballot is not None and ballot.is_approved is not None:
                ballot.take()
                return Ended(result=self._decided(ballot, digest), since=self.since, asked=self.asked)
            if isinstance(waited, Wait):
                return waited if ballot is None else replace(waited, voters=ballot.voters)
            if waited.signal is None:
                self.discard()
                result = Result(success=False, error=describe(ApprovalExpired(approval.tool)))
                return Ended(result=result, since=waited.since, asked=self.asked)
            decision = [*waited.problems] or self._judged(waited.signal, digest)
            if isinstance(decision, Result):
                return Ended(result=decision, since=waited.since, asked=self.asked)
            self.asked = self.asked.refuse(attempt, key, self.action, waited.signal, decision, waited.since)

    def _ballot(self, digest: str) -> Ballot | None:
        """Return the votes that have come, where several may decide."""
        voting = self.approval.voting
        if voting is None:
            return None
        ballot = Ballot(self.attempt, voting, self.key, self.asked.number)
        ballot.count(lambda signal: self._judged_vote(signal, digest))
        return ballot

    def _judged_vote(self, signal: Signal, digest: str) -> Result | list[str]:
        if signal.sender is None or vote_key(self.key, signal.sender) != signal.key:
            return ["the vote is in another's name"]
        payload = signal.payload
        if isinstance(payload, dict) and payload.get("digest") != digest:
            return ["the vote is on another call"]  # a rejection, too: it counts among others
        return self._judged(signal, digest)

    def _decided(self, ballot: Ballot, digest: str) -> Result:
        """Return the decision of several, in all their names."""
        deciding = ballot.deciding()
        names = ", ".join(str(signal.sender) for signal in deciding)
        reasons = "; ".join(signal.reason for signal in deciding if signal.reason) or None
        if not ballot.is_approved:
            return Result(success=False, error=describe(ApprovalDenied(self.approval.tool, names, reasons)))
        last = self._judged(deciding[-1], digest)
        assert isinstance(last, Result)
        return replace(last, output=last.output | {"by": names, "reason": reasons, "votes": ballot.votes()})

    def moment(self) -> datetime | None:
        """See `OpenWait`. Votes end the wait with the one that decides."""
        if self.approval.voting is None:
            return super().moment()
        approval, execution_id = self.approval, self.attempt.context.execution_id
        ballot = self._ballot(digest_of(execution_id, self.key, approval.tool, approval.arguments, self.asked.number))
        assert ballot is not None
        ending = ballot.bad[0] if ballot.bad is not None else None
        if ballot.is_approved is not None:
            ending = ballot.cast[-1][0]
        return super().moment() if ending is None else ending.sent_at

    def discard(self) -> None:
        """See `OpenWait`."""
        if self.approval.voting is None:
            super().discard()
        else:
            Ballot(self.attempt, self.approval.voting, self.key, self.asked.number).take()

    def _judged(self, signal: Signal, digest: str) -> Result | list[str]:
        """Return the decision; or what is wrong with one that came past the client's checks. It approves nothing."""
        try:
            decision = Ruling.model_validate(signal.payload)
        except pydantic.ValidationError:
            return ["the decision is malformed"]
        if not decision.approved:
            denied = ApprovalDenied(self.approval.tool, signal.sender, signal.reason)
            return Result(success=False, error=describe(denied))
        if decision.digest != digest:
            return ["the approval is for another call"]
        if decision.arguments is not None:
            problems = self.approval.problems(decision.arguments)
            if problems:
                return problems
        assert signal.sent_at is not None  # the store has stamped what is in a mailbox
        return Result(
            success=True,
            output={
                "by": signal.sender,
                "reason": signal.reason,
                "at": signal.sent_at.isoformat(),
                "digest": digest,
                "arguments": decision.arguments,
                "channel": signal.channel,
                "os_user": signal.os_user,
            },
        )

    def value(self, result: Result) -> Any:
        """Return the arguments that a person put in place of these, or None. Raise what keeps it from being made."""
        if result.error is not None:
            raise revive(result.error)
        return result.output["arguments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedApproval(Awaited):
    """An approval that the agent's code asks for itself, of a call that no tool of ours makes."""

    name: str
    approval: Approval

    def open(self, attempt: Attempt, key: str) -> "OpenAskedApproval":
        """The code has come to it: its place."""
        return OpenAskedApproval(self.approval, attempt, key)


class OpenAskedApproval(OpenApproval):
    """An approval that the agent's code asks for itself, at its place."""

    def value(self, result: Result) -> dict[str, JSONValue]:
        """Return the arguments that were approved, as a person has edited them."""
        edited = super().value(result)
        return dict(self.approval.arguments if edited is None else edited)


def asked_approval(
    tool: str,
    arguments: Mapping[str, Any],
    description: str,
    schema: Mapping[str, JSONValue] | None,
    timeout: timedelta | None,
    name: str | None,
    max_value_bytes: int = sys.maxsize,
    voting: Voting | None = None,
) -> AskedApproval:
    """Return an approval from the arguments of `Run.approve`.

    Raise `NotSerialisable` or `ValueTooLarge` for arguments that cannot be shown.
    """
    if not isinstance(tool, str) or not tool:
        raise TypeError(f"approve needs the name of what is called, not {tool!r:.80}")
    if not isinstance(arguments, Mapping):
        raise TypeError(f"approve needs the arguments by name, not {arguments!r:.80}")
    try:
        described = types.carried(types.ANY, dict(arguments), "arguments")[1]
    except ValueError as error:
        raise NotSerialisable("arguments", str(error)) from error
    dump(described, f"arguments of {tool!r:.100}", max_value_bytes)
    wanted: dict[str, JSONValue] | None = None if schema is None else dict(schema)

    def problems(edited: Mapping[str, Any]) -> list[str]:
        from celery_agents.define import json_schema  # here: who only enqueues must not load it

        return [] if wanted is None else json_schema.problems(wanted, edited, "arguments")

    return AskedApproval(
        name=f"approve {step_name(tool)}" if name is None else name,
        approval=Approval(
            tool=tool,
            arguments=described,
            description=description,
            schema=wanted,
            problems=problems,
            timeout=timeout,
            voting=voting,
        ),
    )
