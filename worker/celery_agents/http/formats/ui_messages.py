"""The UI message stream that `useChat` of the AI SDK reads (`ai` 7).

One execution is one message of the assistant, whose id is the execution's. What is void is taken back by `reset-step`,
which removes all parts behind the last `start-step`: what of them counts is said again.
"""

import json
from typing import Any, ClassVar, Final

from agent_statestore.records import ExecutionSummary, JSONValue
from celery_agents.http.formats.front_end import FrontEndFormat, Voice
from celery_agents.http.formats.talk import (
    Answered,
    Begun,
    Closed,
    Grown,
    Item,
    ItemKind,
    Line,
    Noted,
    Over,
    PersonAsked,
    Ruled,
    StepBegun,
    StepEnded,
    Voided,
    Waiting,
    is_approved,
)

# The tool by which a front end answers the agent's questions: with `addToolOutput`.
ASK_TOOL: Final = "ask"
_DONE: Final = "[DONE]"
_SPOKEN: Final = frozenset((ItemKind.TEXT, ItemKind.THINKING, ItemKind.TOOL_CALL))


class UIMessages(FrontEndFormat):
    """The chunks of one message of the assistant. The response ends with the execution, or where a person is asked."""

    headers: ClassVar[tuple[tuple[str, str], ...]] = (("x-vercel-ai-ui-message-stream", "v1"),)

    def __init__(self, summary: ExecutionSummary) -> None:
        super().__init__(_UIVoice(summary))


class _UIVoice(Voice):
    """Says a talk as chunks."""

    def __init__(self, summary: ExecutionSummary) -> None:
        super().__init__(summary)
        self._is_started = False
        self._is_in_step = False
        # What was said behind the last `start-step`.
        self._section: list[Item] = []

    # -- the response --------------------------------------------------------------------------------------------------

    def greet(self, after: int) -> None:
        """Start the message; see `Voice`."""
        del after
        self._start()

    def catch_up(self) -> None:
        """Say again what the viewer has of the last step, as far as it counts; see `Voice`."""
        self._is_started = True
        if self._section:
            self._say_again()

    def close(self) -> None:
        """Finish the message; see `Voice`."""
        self._finish(Over("completed", None, None))

    def say(self, line: Line) -> None:
        """Say a line; see `Voice`."""
        if not self._is_started:
            self._start()
        match line:
            case Begun(item=item):
                self._enter(item)
                self._begin(item)
            case Grown(item=item, delta=delta):
                self._grow(item, delta)
            case Closed(item=item):
                self._end(item)
            case Voided():
                gone = {id(item) for item in line.items}
                self._section = [item for item in self._section if id(item) not in gone]
                self._say_again()
            case PersonAsked(item=item):
                self._ask(item)
            case Ruled(item=item):
                self._rule(item)
            case Answered(item=item):
                self._answer(item)
            case StepBegun(step=step):
                self.put("data-step", data={"step": step, "state": "started"}, transient=True)
            case StepEnded(step=step):
                self.put("data-step", data={"step": step, "state": "ended"}, transient=True)
            case Noted(kind=kind, data=data):
                self.put("data-execution", data={**data, "kind": kind}, transient=True)
            case Waiting():
                self._end_message("tool-calls")
            case Over():
                self._finish(line)

    # -- the message ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._is_started = True
        metadata: JSONValue = {"executionId": self.summary.execution_id, "agentId": self.summary.agent_id}
        self.put("start", messageId=self.summary.execution_id, messageMetadata=metadata)

    def _finish(self, finished: Over) -> None:
        for item in self.talk.items:
            if item.kind is ItemKind.TOOL_CALL and item.returned is None:
                self.put("tool-output-available", toolCallId=item.call_id, output=None, providerExecuted=True)
        if finished.state == "failed":
            error = finished.error or {}
            text = str(error.get("message") or error.get("type") or "failed")
            self._leave_step()
            self.put("error", errorText=text)
            self.said.append(_DONE)
            self._is_started, self.is_done = False, True
        elif finished.state == "cancelled":
            self._leave_step()
            self.put("abort", reason="cancelled")
            self._end_message("interrupted", state=finished.state)
        else:
            self._end_message("stop", state=finished.state, output=finished.output)

    def _end_message(self, reason: str, **metadata: JSONValue) -> None:
        self._leave_step()
        more: dict[str, Any] = {"messageMetadata": metadata} if metadata else {}
        self.put("finish", finishReason=reason, **more)
        self.said.append(_DONE)
        self._is_started, self.is_done = False, True

    def _leave_step(self) -> None:
        if self._is_in_step:
            self._is_in_step = False
            self.put("finish-step")

    # -- the parts -----------------------------------------------------------------------------------------------------

    def _enter(self, item: Item) -> None:
        """Begin a step of the message where a model speaks anew, and nothing that was said before can become void."""
        if self._section and item.kind in _SPOKEN:
            # Front ends look at the last step of the message to see whether all that is asked is answered.
            is_asked = any(other.ask is not None and other.ruling is None for other in self._section)
            is_another = item.step not in {other.step for other in self._section}
            if is_another and all(other.is_settled for other in self._section) and not is_asked:
                self._leave_step()
                self._section = []
        if not self._section:
            self._is_in_step = True
            self.put("start-step")
        self._section.append(item)

    def _say_again(self) -> None:
        self.put("reset-step")
        for item in self._section:
            self._begin(item)
            if item.text and item.kind in _SPOKEN and (item.is_open or item.kind is not ItemKind.TOOL_CALL):
                self._grow(item, item.text)
            if not item.is_open:
                self._end(item)
            if item.ask is not None:
                self._ask(item)
            if item.ruling is not None:
                self._rule(item)
            if item.returned is not None:
                self._answer(item)

    def _begin(self, item: Item) -> None:
        match item.kind:
            case ItemKind.TEXT:
                self.put("text-start", id=item.id)
            case ItemKind.THINKING:
                self.put("reasoning-start", id=item.id)
            case ItemKind.TOOL_CALL if item.is_open or item.arguments is None:
                self.put("tool-input-start", toolCallId=item.call_id, toolName=item.tool, providerExecuted=True)
            case ItemKind.EMITTED:
                self._emit(item)
            case ItemKind.SAID:
                self.put("steering-message", id=item.id, parts=[{"type": "text", "text": item.text}])

    def _grow(self, item: Item, delta: str) -> None:
        match item.kind:
            case ItemKind.TEXT:
                self.put("text-delta", id=item.id, delta=delta)
            case ItemKind.THINKING:
                self.put("reasoning-delta", id=item.id, delta=delta)
            case ItemKind.TOOL_CALL:
                self.put("tool-input-delta", toolCallId=item.call_id, inputTextDelta=delta)

    def _end(self, item: Item) -> None:
        match item.kind:
            case ItemKind.TEXT:
                self.put("text-end", id=item.id)
            case ItemKind.THINKING:
                self.put("reasoning-end", id=item.id)
            case ItemKind.TOOL_CALL:
                self._put_input(item)

    def _emit(self, item: Item) -> None:
        value = item.value
        if isinstance(value, dict) and str(value.get("type", "")).startswith("data-") and "data" in value:
            named: dict[str, Any] = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
            transient = value.get("transient") is True
            self.put(str(value["type"]), data=value["data"], transient=transient, **named)
        else:
            self.put("data-emitted", id=item.id, data=value)

    # -- calls and questions -------------------------------------------------------------------------------------------

    def _put_input(self, item: Item) -> None:
        value = _input(item)
        self.put(
            "tool-input-available", toolCallId=item.call_id, toolName=item.tool, input=value, providerExecuted=True
        )

    def _ask(self, item: Item) -> None:
        assert item.ask is not None, "asked about it"
        if item.kind is ItemKind.QUESTION:
            asked: JSONValue = {name: item.ask.data[name] for name in ("prompt", "schema") if name in item.ask.data}
            self.put("tool-input-available", toolCallId=item.ask.name, toolName=ASK_TOOL, input=asked)
            return
        reason: dict[str, Any] = {"reason": item.ask.prompt} if item.ask.prompt else {}
        self.put("tool-approval-request", approvalId=item.ask.name, toolCallId=item.call_id, **reason)

    def _rule(self, item: Item) -> None:
        if item.kind is ItemKind.QUESTION or item.ask is None or item.ruling is None:
            return
        ruling = item.ruling.get("value")
        if isinstance(ruling, dict) and ruling.get("arguments") and item in self._section:
            self._put_input(item)
        given = item.ruling.get("reason")
        reason: dict[str, Any] = {"reason": given} if isinstance(given, str) else {}
        self.put("tool-approval-response", approvalId=item.ask.name, approved=is_approved(item), **reason)

    def _answer(self, item: Item) -> None:
        returned = item.returned
        assert returned is not None, "answered"
        if item.kind is ItemKind.QUESTION:
            assert item.ask is not None, "a question"
            self.put("tool-output-available", toolCallId=item.ask.name, output=returned.output)
        elif returned.is_denied:
            self.put("tool-output-denied", toolCallId=item.call_id)
        elif returned.error is not None:
            self.put("tool-output-error", toolCallId=item.call_id, errorText=returned.error, providerExecuted=True)
        else:
            self.put("tool-output-available", toolCallId=item.call_id, output=returned.output, providerExecuted=True)


def _input(item: Item) -> JSONValue:
    """Return the arguments of a call: as they were told, or from the text that the model has written."""
    if item.arguments is not None:
        return item.arguments
    try:
        parsed: JSONValue = json.loads(item.text) if item.text else {}
    except ValueError:
        return item.text
    return parsed
