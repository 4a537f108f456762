"""What the events of an execution mean for a page with a chat: what is said, called, returned, asked, in order.

The formats of front ends are made from it. It knows which words are void (`Transcript`), which call a tool's step
belongs to, and what is asked of a person.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from agent_statestore.records import JSONValue
from agent_statestore.streams import StreamEvent, StreamKind
from celery_agents.client.transcript import Added, Discarded, Part, PartKind, Recorded, Transcript
from celery_agents.http.formats.asks import Ask
from celery_agents.http.formats.tool_calls import Returned, ToolCallBook


class ItemKind(StrEnum):
    """What a conversation consists of: a `Part`'s kinds, a person's question, and what a person said."""

    TEXT = "text"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    EMITTED = "emitted"
    QUESTION = "question"
    SAID = "said"


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """A piece of the conversation.

    Attributes:
        id: unique among those of all executions.
        text: what was said by now; of a tool's call, its arguments as JSON, perhaps unfinished.
        is_open: whether more may come to its end.
        is_settled: whether it can no longer become void.
        call_id, tool, arguments: of a call.
        value: of what was emitted.
        ask: what is asked of a person about the call, or by the question.
        ruling: the answer to it, as its event tells it.
        returned: what came of the call, or what was answered to the question.
    """

    id: str
    kind: ItemKind
    step: str
    text: str = ""
    is_open: bool = True
    is_settled: bool = False
    call_id: str = ""
    tool: str = ""
    arguments: JSONValue = None
    value: JSONValue = None
    ask: Ask | None = None
    ruling: Mapping[str, JSONValue] | None = None
    returned: Returned | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """An item begins."""

    item: Item


@dataclass(frozen=True, slots=True)
class Grown:
    """More came to the end of an item's text."""

    item: Item
    delta: str


@dataclass(frozen=True, slots=True)
class Closed:
    """An item is whole: a text, what is thought, or the arguments of a call."""

    item: Item


@dataclass(frozen=True, slots=True)
class Voided:
    """These items never happened."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class PersonAsked:
    """A person is asked about this item."""

    item: Item


@dataclass(frozen=True, slots=True)
class Ruled:
    """A person has answered."""

    item: Item


@dataclass(frozen=True, slots=True)
class Answered:
    """A call has returned, or a question has its answer: `item.returned`."""

    item: Item


@dataclass(frozen=True, slots=True)
class StepBegun:
    """A step is under way."""

    step: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step is recorded, or given up by a claim that was lost."""

    step: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something else happened, of which a page may tell."""

    kind: str
    data: Mapping[str, JSONValue]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The execution is paused, and a person's answer lets it go on."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """The execution is over."""

    state: str
    output: JSONValue
    error: Mapping[str, JSONValue] | None


Line: TypeAlias = (
    Begun | Grown | Closed | Voided | PersonAsked | Ruled | Answered | StepBegun | StepEnded | Noted | Waiting | Over
)

_NOTED: Final = frozenset(
    (
        *(StreamKind.STARTED, StreamKind.RESUMED, StreamKind.RECOVERED, StreamKind.DRAINED, StreamKind.TRY_FAILED),
        *(StreamKind.CANCEL_REQUESTED, StreamKind.ANSWERED, StreamKind.GAP, StreamKind.TRIMMED),
    )
)
_CLAIMS: Final = frozenset((StreamKind.STARTED, StreamKind.RESUMED, StreamKind.RECOVERED))


@dataclass(slots=True)
class Talk:
    """The conversation of one execution, fed with its events in order.

    Attributes:
        items: all that counts by now, in the order in which it began.
        steps: those that are under way, as far as was told.
    """

    execution_id: str
    items: list[Item] = field(default_factory=list)
    steps: dict[str, None] = field(default_factory=dict)
    _transcript: Transcript = field(default_factory=Transcript)
    _of_part: dict[str, Item] = field(default_factory=dict)
    _calls: ToolCallBook = field(default_factory=ToolCallBook)
    _asked: dict[tuple[str, int], Item] = field(default_factory=dict)

    def feed(self, event: StreamEvent) -> list[Line]:
        """Return what an event means, in order. An event that was fed before means nothing."""
        if event.number is not None and event.number <= self._transcript.last:
            return []
        return list(self._feed(event))

    def _feed(self, event: StreamEvent) -> Iterator[Line]:
        for change in self._transcript.feed(event):
            match change:
                case Added(part=part, delta=delta):
                    yield from self._said(part, delta)
                case Discarded(parts=parts):
                    yield Voided(tuple(self._forget(part) for part in parts))
                case Recorded(parts=parts):
                    for part in parts:
                        item = self._of_part.pop(part.id)
                        item.is_settled = True
                        yield from _close(item)
        if event.kind in _CLAIMS:
            yield from self._end_steps()
        if event.kind in _NOTED:
            yield Noted(event.kind, _with_step(event))
        match event.kind:
            case StreamKind.STEP_STARTED:
                yield from self._step_started(event)
            case StreamKind.STEP_RECORDED:
                yield from self._step_recorded(event)
            case StreamKind.SAID:
                yield from self._begin(
                    Item(
                        id=f"{self.execution_id}:said:{event.number}",
                        kind=ItemKind.SAID,
                        step="",
                        text=str(event.data.get("text", "")),
                        is_open=False,
                        is_settled=True,
                    )
                )
            case StreamKind.ASKED:
                yield from self._ask(event)
            case StreamKind.ANSWERED:
                yield from self._answered(event)
            case StreamKind.PAUSED:
                yield from self._paused(event)
            case StreamKind.ENDED:
                yield from self._ended(event)

    # -- what is said --------------------------------------------------------------------------------------------------

    def _said(self, part: Part, delta: str) -> Iterator[Line]:
        item = self._of_part.get(part.id)
        if item is None:
            for other in list(self._of_part.values()):
                if other.step == part.step and other.kind in (ItemKind.TEXT, ItemKind.THINKING):
                    yield from _close(other)
            item = self._of_part[part.id] = Item(
                id=f"{self.execution_id}:{part.id}",
                kind=ItemKind(part.kind.value),
                step=part.step,
                value=part.value,
                is_open=part.kind is not PartKind.EMITTED,
            )
            if item.kind is ItemKind.TOOL_CALL:
                item.call_id, item.tool = self._calls.add(item.id, part.call_id, part.tool), part.tool
            yield from self._begin(item)
        if delta:
            item.text += delta
            yield Grown(item, delta)
        if part.arguments is not None and item.arguments is None:
            item.arguments = dict(part.arguments)
            yield from _close(item)

    def _begin(self, item: Item) -> Iterator[Line]:
        self.items.append(item)
        yield Begun(item)

    def _forget(self, part: Part) -> Item:
        item = self._of_part.pop(part.id)
        self.items.remove(item)
        self._calls.forget(item.call_id)
        return item

    # -- calls and steps -----------------------------------------------------------------------------------------------

    def _step_started(self, event: StreamEvent) -> Iterator[Line]:
        if event.step not in self.steps:
            self.steps[event.step] = None
            yield StepBegun(event.step)
        if event.data.get("action") == "tool":
            yield from self._made(event, event.data.get("arguments"))

    def _step_recorded(self, event: StreamEvent) -> Iterator[Line]:
        if event.step not in self.steps:
            yield StepBegun(event.step)
        data = event.data
        if data.get("action") == "tool":
            yield from self._made(event, data.get("arguments"))
            item = self._item_of(self._calls.of_step(event.step))
            if item is not None and item.returned is None:
                item.returned = Returned.of(data)
                item.is_settled = True
                self._calls.answer(item.call_id)
                yield Answered(item)
        self.steps.pop(event.step, None)
        yield StepEnded(event.step)

    def _made(self, event: StreamEvent, arguments: JSONValue) -> Iterator[Line]:
        """A tool is called in this step: what a model has asked for, or a call that the agent's code makes itself."""
        tool = event.data.get("tool")
        if not isinstance(tool, str) or self._calls.of_step(event.step) is not None:
            return
        if self._calls.match(event.step, tool, self._arguments_of(), arguments) is None:
            yield from self._own_call(event.step, tool, arguments)
            self._calls.match(event.step, tool, self._arguments_of(), arguments)

    def _own_call(self, key: str, tool: str, arguments: JSONValue) -> Iterator[Line]:
        name = f"{self.execution_id}:{key}"
        item = Item(
            id=name,
            kind=ItemKind.TOOL_CALL,
            step=key,
            call_id=self._calls.add(name, name, tool),
            tool=tool,
            arguments={} if arguments is None else arguments,
            is_settled=True,
        )
        yield from self._begin(item)
        yield from _close(item)

    def _item_of(self, call_id: str | None) -> Item | None:
        return next((item for item in self.items if call_id and item.call_id == call_id), None)

    def _arguments_of(self) -> dict[str, JSONValue]:
        return {item.call_id: item.arguments for item in self.items if item.call_id}

    def _end_steps(self) -> Iterator[Line]:
        for step in list(self.steps):
            del self.steps[step]
            yield StepEnded(step)

    # -- people --------------------------------------------------------------------------------------------------------

    def _ask(self, event: StreamEvent) -> Iterator[Line]:
        ask = Ask.of(self.execution_id, event.data)
        if ask is None:
            yield Noted(event.kind, event.data)
            return
        if (ask.key, ask.round) in self._asked:
            return
        if ask.is_approval:
            tool, arguments = str(event.data.get("tool", "")), event.data.get("arguments")
            call_id = self._calls.asked(tool, self._arguments_of(), arguments)
            if call_id is None:
                yield from self._own_call(ask.key, tool, arguments)
                call_id = self._calls.asked(tool, self._arguments_of(), arguments)
            item = self._item_of(call_id)
            assert item is not None, "found, or made"
            yield from _close(item)
        else:
            item = Item(id=ask.name, kind=ItemKind.QUESTION, step=ask.key, is_open=False, is_settled=True)
            item.ask = ask
            yield from self._begin(item)
        item.ask = ask
        self._asked[ask.key, ask.round] = item
        yield PersonAsked(item)

    def _answered(self, event: StreamEvent) -> Iterator[Line]:
        key, round_ = event.data.get("key"), event.data.get("round")
        item = self._asked.get((key, round_)) if isinstance(key, str) and isinstance(round_, int) else None
        if item is None or item.ruling is not None:
            return
        value = event.data.get("value")
        item.ruling = event.data
        if isinstance(value, dict) and item.ask is not None and item.ask.is_approval and value.get("arguments"):
            item.arguments = value["arguments"]
        yield Ruled(item)
        if item.kind is ItemKind.QUESTION:
            item.returned = Returned(output=value)
            yield Answered(item)
        elif not is_approved(item):
            reason = event.data.get("reason")
            item.returned = Returned(error=reason if isinstance(reason, str) else "refused", is_denied=True)
            self._calls.answer(item.call_id)
            yield Answered(item)

    def _paused(self, event: StreamEvent) -> Iterator[Line]:
        waits = event.data.get("waits")
        named = (
            [(wait.get("key"), wait.get("round")) for wait in waits if isinstance(wait, dict)]
            if isinstance(waits, list)
            else []
        )
        asked = tuple(item for place, item in self._asked.items() if place in named and item.ruling is None)
        yield from self._end_steps()
        if asked:
            yield Waiting(asked)

    def _ended(self, event: StreamEvent) -> Iterator[Line]:
        for part_id in list(self._of_part):
            yield from _close(self._of_part.pop(part_id))
        output, error = event.data.get("output"), event.data.get("error")
        if isinstance(output, str) and output.strip() and not self._has_said(output):
            yield from self._begin(
                Item(id=f"{self.execution_id}:output", kind=ItemKind.TEXT, step="", text=output, is_settled=True)
            )
            item = self.items[-1]
            yield Grown(item, output)
            yield from _close(item)
        yield from self._end_steps()
        yield Over(str(event.data.get("state", "")), output, error if isinstance(error, dict) else None)

    def _has_said(self, output: str) -> bool:
        said = "".join(item.text for item in self.items if item.kind is ItemKind.TEXT)
        return said.strip().endswith(output.strip())


def is_approved(item: Item) -> bool:
    """Return whether a person has approved of the call."""
    value = None if item.ruling is None else item.ruling.get("value")
    return isinstance(value, dict) and value.get("approved") is True


def _close(item: Item) -> Iterator[Line]:
    if item.is_open:
        item.is_open = False
        yield Closed(item)


def _with_step(event: StreamEvent) -> Mapping[str, JSONValue]:
    return {**event.data, "step": event.step, "tried": event.tried} if event.step else event.data
