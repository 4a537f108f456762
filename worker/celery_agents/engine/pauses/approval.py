"""An approval of a tool call: bound to the exact arguments, given once, by a person who is recorded.

It is a step of its own before the call's, so that the journal shows who allowed it, and with which arguments.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.records import Action, JSONValue, Result, Signal, WaitKind
from celery_agents.define.tool import Tool
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.rounds import Round
from celery_agents.engine.pauses.wait import conclude, wait
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
    """An approval as the code asks for it: of a step that calls the tool with these arguments."""

    tool: Tool[..., Any]
    arguments: Mapping[str, JSONValue]
    timeout: timedelta | None

    def get(self, attempt: Attempt, key: str) -> Mapping[str, JSONValue] | None:
        """The arguments that a person put in place of these, or None for these; unwinds the agent until then.

        `key` is that of its step in the journal.
        Raises `ApprovalDenied`, `ApprovalExpired`, and `JournalMismatch` if the code asks for another call than the
        one that was shown.
        """
        tool = self.tool
        action = Action(kind="approval", tool=tool.name, input=dict(self.arguments))
        recorded = attempt.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            return self._replayed(recorded.result)
        waiting = attempt.recorder.waiting
        if waiting is not None and (waiting.kind, waiting.key) == (WaitKind.APPROVAL, key):
            shown = waiting.prompt
            if (shown["tool"], _sorted(shown["arguments"])) != (tool.name, _sorted(dict(self.arguments))):
                raise JournalMismatch(
                    key, f"a person was shown {shown['arguments']!r}, but the code now calls it with {self.arguments!r}"
                )
        asked = Round.of(recorded)
        while True:
            digest = digest_of(attempt.context.execution_id, key, tool.name, self.arguments, asked.number)
            waited = wait(
                attempt,
                WaitKind.APPROVAL,
                key,
                timeout=self.timeout,
                prompt={
                    "tool": tool.name,
                    "description": tool.description,
                    "arguments": dict(self.arguments),
                    "digest": digest,
                },
                schema=tool.json_schema,
                asked=asked,
            )
            if waited.signal is None:
                result = Result(success=False, error=describe(ApprovalExpired(tool.name)))
                break
            decision = [*waited.problems] or self._judged(waited.signal, digest)
            if isinstance(decision, Result):
                result = decision
                break
            asked = asked.refuse(attempt, key, action, waited.signal, decision, waited.since)
        return self._replayed(conclude(attempt, key, action, result, waited.since, asked))

    def _judged(self, signal: Signal, digest: str) -> Result | list[str]:
        """Return the decision; or what is wrong with one that came past the client's checks. It approves nothing."""
        tool = self.tool
        try:
            decision = Ruling.model_validate(signal.payload)
        except pydantic.ValidationError:
            return ["the decision is malformed"]
        if not decision.approved:
            return Result(success=False, error=describe(ApprovalDenied(tool.name, signal.sender, signal.reason)))
        if decision.digest != digest:
            return ["the approval is for another call"]
        if decision.arguments is not None:
            problems = tool.problems(decision.arguments)
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

    @staticmethod
    def _replayed(result: Result) -> Mapping[str, JSONValue] | None:
        if result.error is not None:
            raise revive(result.error)
        edited: Mapping[str, JSONValue] | None = result.output["arguments"]
        return edited
