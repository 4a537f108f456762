"""AG-UI 1.0, the protocol that CopilotKit and `@ag-ui/client` read.

A run of AG-UI ends where a person has to answer, with the outcome `interrupt`; the answers come with the next run. So
one execution may be several runs. AG-UI cannot take a word back, but `MESSAGES_SNAPSHOT` replaces the messages: it
follows whatever became void, and comes first where a viewer comes in between.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent_statestore.records import ExecutionSummary, JSONValue
from celery_agents.http.formats.agui_messages import (
    Event,
    corrected,
    interrupt_of,
    is_ours,
    parent_of,
    result_id,
    told_of,
)
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
    StepBegun,
    StepEnded,
    Voided,
    Waiting,
)

VERSION: Final = "1.0"
# What an agent emits in AG-UI's own words, if it has these fields, is sent as it is.
_OWN_EVENTS: Final[Mapping[str, tuple[str, type]]] = {
    "STATE_SNAPSHOT": ("snapshot", object),
    "STATE_DELTA": ("delta", list),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AGUIRun:
    """One run, as a front end has asked for it. `history` are its messages, `tools` the names of its own tools."""

    thread_id: str
    run_id: str
    history: tuple[Mapping[str, Any], ...] = ()
    tools: frozenset[str] = frozenset()


class AGUI(FrontEndFormat):
    """The events of AG-UI: for the run that a front end has asked for, or for whoever looks; see `_AGUIVoice`."""

    def __init__(self, summary: ExecutionSummary, run: AGUIRun | None = None) -> None:
        super().__init__(_AGUIVoice(summary, run))


class _AGUIVoice(Voice):
    """The events of AG-UI.

    For the run that a front end has asked for, the response ends with it. Without a `run`, what follows an interrupt is
    another run in the same response, and the conversation is that of this execution alone.
    """

    def __init__(self, summary: ExecutionSummary, run: AGUIRun | None) -> None:
        super().__init__(summary)
        self._is_asked_for = run is not None
        execution_id = summary.execution_id
        self._run = run or AGUIRun(thread_id=summary.session_id or execution_id, run_id=execution_id)
        self._names: Event = {"threadId": self._run.thread_id, "runId": self._run.run_id}
        self._is_running = False
        # What was begun and not ended, by the item's id.
        self._open: dict[str, Item] = {}
        self._parents: dict[str, str] = {}
        self._steps: dict[str, None] = {}
        self._void_thought: str | None = None

    # -- the response --------------------------------------------------------------------------------------------------

    def greet(self, after: int) -> None:
        """Begin the run; see `Voice`."""
        if self._is_asked_for or after == 0:
            self._start()
        if after == 0 and any(is_ours(self.summary.execution_id, old) for old in self._run.history):
            self._correct()

    def catch_up(self) -> None:
        """Bring the viewer to where it comes in; see `Voice`."""
        if not self._is_asked_for:
            self._start()
        self._is_running = True
        self._correct()
        for item in self._open.values():
            self._begin(item)
        for step in self._steps:
            self.put("STEP_STARTED", stepName=step)

    def close(self) -> None:
        """End the run; see `Voice`."""
        self._finish(Over("completed", None, None))

    def say(self, line: Line) -> None:
        """Say a line; see `Voice`."""
        if not self._is_running:
            self._start()
        match line:
            case Begun(item=item):
                self._say_begun(item)
            case Grown(item=item, delta=delta):
                self._grow(item, delta)
            case Closed(item=item):
                self._end(item)
            case Voided(items=items):
                self._void(items)
            case Answered(item=item) if item.kind is ItemKind.TOOL_CALL and item.returned is not None:
                self._put_result(item, told_of(item.returned))
            case StepBegun(step=step):
                self._steps[step] = None
                self.put("STEP_STARTED", stepName=step)
            case StepEnded(step=step) if step in self._steps:
                del self._steps[step]
                self.put("STEP_FINISHED", stepName=step)
            case Noted(kind=kind, data=data):
                self.put("CUSTOM", name=f"agents.{kind}", value=dict(data))
            case Waiting(items=items):
                self._interrupt(items)
            case Over():
                self._finish(line)

    # -- runs ----------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._is_running = True
        metadata: Event = {"executionId": self.summary.execution_id, "agentId": self.summary.agent_id}
        self.put("RUN_STARTED", **self._names, protocolVersion=VERSION, metadata=metadata)

    def _interrupt(self, items: tuple[Item, ...]) -> None:
        self._end_all()
        interrupts: list[JSONValue] = [interrupt_of(item, item.ask) for item in items if item.ask is not None]
        self.put("RUN_FINISHED", **self._names, outcome={"type": "interrupt", "interrupts": interrupts})
        self._is_running = False
        self.is_done = self._is_asked_for

    def _finish(self, finished: Over) -> None:
        self._end_all()
        pending: list[JSONValue] = []
        for item in self.talk.items:
            if item.kind is ItemKind.TOOL_CALL and item.returned is None:
                if item.tool in self._run.tools:
                    pending.append(item.call_id)
                else:
                    # A front end takes a call that nothing came of for one that it is to make itself.
                    self._put_result(item, "")
        if finished.state == "failed":
            error = finished.error or {}
            self.put("RUN_ERROR", message=str(error.get("message", "failed")), code=str(error.get("type", "")))
        elif finished.state == "cancelled":
            self.put("RUN_FINISHED", **self._names, outcome={"type": "cancelled"})
        else:
            outcome: Event = {"type": "success", "pendingToolCallIds": pending} if pending else {"type": "success"}
            self.put("RUN_FINISHED", **self._names, result=finished.output, outcome=outcome)
        self._is_running = False
        self.is_done = True

    # -- items ---------------------------------------------------------------------------------------------------------

    def _say_begun(self, item: Item) -> None:
        if item.kind is ItemKind.EMITTED:
            self._emit(item.value)
        elif item.kind is ItemKind.SAID:
            self.put("TEXT_MESSAGE_START", messageId=item.id, role="user")
            self.put("TEXT_MESSAGE_CONTENT", messageId=item.id, delta=item.text)
            self.put("TEXT_MESSAGE_END", messageId=item.id)
        elif item.kind is not ItemKind.QUESTION:
            if item.kind is ItemKind.TOOL_CALL:
                self._parents[item.id] = parent_of(item, self.talk.items, self._parents)
            self._open[item.id] = item
            self._begin(item)

    def _begin(self, item: Item) -> None:
        if item.kind is ItemKind.TEXT:
            self.put("TEXT_MESSAGE_START", messageId=item.id, role="assistant")
        elif item.kind is ItemKind.THINKING:
            self.put("REASONING_START", messageId=item.id)
            self.put("REASONING_MESSAGE_START", messageId=item.id, role="reasoning")
        else:
            names: Event = {"toolCallId": item.call_id, "toolCallName": item.tool}
            self.put("TOOL_CALL_START", **names, parentMessageId=self._parents[item.id])

    def _grow(self, item: Item, delta: str) -> None:
        if item.kind is ItemKind.TEXT:
            self.put("TEXT_MESSAGE_CONTENT", messageId=item.id, delta=delta)
        elif item.kind is ItemKind.THINKING:
            self.put("REASONING_MESSAGE_CONTENT", messageId=item.id, delta=delta)
        else:
            self.put("TOOL_CALL_ARGS", toolCallId=item.call_id, delta=delta)

    def _end(self, item: Item) -> None:
        if self._open.pop(item.id, None) is None:
            return
        if item.kind is ItemKind.TEXT:
            self.put("TEXT_MESSAGE_END", messageId=item.id)
        elif item.kind is ItemKind.THINKING:
            self.put("REASONING_MESSAGE_END", messageId=item.id)
            self.put("REASONING_END", messageId=item.id)
        else:
            if not item.text and item.arguments is not None:
                self.put("TOOL_CALL_ARGS", toolCallId=item.call_id, delta=json.dumps(item.arguments))
            self.put("TOOL_CALL_END", toolCallId=item.call_id)

    def _end_all(self) -> None:
        for item in list(self._open.values()):
            self._end(item)

    def _void(self, items: tuple[Item, ...]) -> None:
        for item in items:
            self._end(item)
            if item.kind is ItemKind.TOOL_CALL:
                self._put_result(item, "")
            elif item.kind is ItemKind.THINKING:
                self._void_thought = item.id
        if any(item.kind is not ItemKind.EMITTED for item in items):
            self._correct()

    def _emit(self, value: JSONValue) -> None:
        if isinstance(value, dict):
            name, kind = _OWN_EVENTS.get(str(value.get("type")), ("", object))
            if name in value and isinstance(value[name], kind):
                self.put(str(value["type"]), **{name: value[name]})
                return
        self.put("CUSTOM", name="agents.emitted", value=value)

    def _put_result(self, item: Item, content: str) -> None:
        result = result_id(self.summary.execution_id, item)
        self.put("TOOL_CALL_RESULT", messageId=result, toolCallId=item.call_id, content=content, role="tool")

    def _correct(self) -> None:
        """Replace the front end's messages by what counts: its own ones, and ours in their places."""
        messages = corrected(self.summary.execution_id, self._run.history, self.talk.items, self._parents)
        thoughts = any(message.get("role") == "reasoning" for message in messages)
        if self._void_thought is not None and not thoughts:
            # Front ends keep their thoughts where a snapshot has none, also those that are void. An empty one is shown
            # by none of them.
            messages.append({"id": self._void_thought, "role": "reasoning", "content": ""})
        self.put("MESSAGES_SNAPSHOT", messages=[*messages])
