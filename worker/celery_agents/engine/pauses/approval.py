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
from celery_agents.engine.pauses.wait import conclude, wait
from celery_agents.errors import ApprovalDenied, ApprovalExpired, JournalMismatch


class Ruling(pydantic.BaseModel):
    """What an approval's signal carries: see `Execution.approve`."""

    model_config = pydantic.ConfigDict(extra="forbid")

    approved: bool
    digest: str
    arguments: dict[str, Any] | None = None


def digest_of(key: str, tool: str, arguments: Mapping[str, JSONValue]) -> str:
    """What an approval is bound to: SHA-256 of its key, the tool's name and its exact arguments.

    Of its key, so that it differs where an execution asks for the same call again: a page that shows the first must
    not approve of the second.
    """
    text = dump({"arguments": _sorted(dict(arguments)), "key": key, "tool": tool}, "arguments")
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
        tool, digest = self.tool, digest_of(key, self.tool.name, self.arguments)
        action = Action(kind="approval", tool=tool.name, input=dict(self.arguments))
        recorded = attempt.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            return self._replayed(recorded.result)
        waiting = attempt.recorder.waiting
        if waiting is not None and (waiting.kind, waiting.key) == (WaitKind.APPROVAL, key):
            shown = waiting.prompt
            if shown["digest"] != digest:
                raise JournalMismatch(
                    key, f"a person was shown {shown['arguments']!r}, but the code now calls it with {self.arguments!r}"
                )
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
        )
        if waited.signal is None:
            result = Result(success=False, error=describe(ApprovalExpired(tool.name)))
        else:
            result = self._judged(waited.signal, digest)
        return self._replayed(conclude(attempt, key, action, result, waited.since))

    def _judged(self, signal: Signal, digest: str) -> Result:
        """A decision that came past the client's own checks may still be wrong. Then nothing is approved."""
        tool = self.tool
        try:
            decision = Ruling.model_validate(signal.payload)
        except pydantic.ValidationError:
            return Result(
                success=False, error=describe(ApprovalDenied(tool.name, signal.sender, "the decision is malformed"))
            )
        if not decision.approved:
            return Result(success=False, error=describe(ApprovalDenied(tool.name, signal.sender, signal.reason)))
        if decision.digest != digest:
            reason = "the approval is for other arguments"
            return Result(success=False, error=describe(ApprovalDenied(tool.name, signal.sender, reason)))
        if decision.arguments is not None:
            try:
                tool.check_arguments((), tool.read_arguments(decision.arguments))
            except Exception as error:  # noqa: BLE001 - `InvalidArguments`, or of a validator of the user's
                return Result(success=False, error=describe(error))
        assert signal.sent_at is not None  # the store has stamped what is in a mailbox
        return Result(
            success=True,
            output={
                "by": signal.sender,
                "reason": signal.reason,
                "at": signal.sent_at.isoformat(),
                "digest": digest,
                "arguments": decision.arguments,
            },
        )

    @staticmethod
    def _replayed(result: Result) -> Mapping[str, JSONValue] | None:
        if result.error is not None:
            raise revive(result.error)
        edited: Mapping[str, JSONValue] | None = result.output["arguments"]
        return edited
