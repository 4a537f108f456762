import random
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_statestore.streams import StreamEvent, StreamKind
from celery_agents.client.transcript import Added, Discarded, Part, PartKind, Recorded, Transcript

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Said = list[tuple[str, str, str]]


def event(kind: str, at: int, step: str = "", tried: int = 0, attempt: int = 1, **data: Any) -> StreamEvent:
    return StreamEvent(kind=kind, data=data, at=NOW, attempt=attempt, seq=at, step=step, tried=tried, number=at)


def fed(events: Iterable[StreamEvent]) -> Transcript:
    transcript = Transcript()
    for each in events:
        transcript.feed(each)
    return transcript


def said(parts: Iterable[Part]) -> Said:
    return [(part.kind.value, part.call_id, part.text) for part in parts]


class History:
    """Writes the stream of an execution whose steps run at once, and knows what counts in the end.

    `late` is what tries that are over still say: a thread whose step ran out of time cannot be stopped.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.events: list[StreamEvent] = []
        self.recorded: dict[str, Said] = {}
        self.order: list[str] = []
        self.attempt = 0
        self.open: dict[str, tuple[int, Said]] = {}
        self.over: list[tuple[int, str, int]] = []
        self.between: Said = []
        self.claim(StreamKind.STARTED)

    def write(self, kind: str, step: str = "", tried: int = 0, attempt: int | None = None, **data: Any) -> None:
        number = (self.events[-1].number or 0) + self.chance.randint(1, 3) if self.events else 1
        self.events.append(event(kind, number, step, tried, attempt or self.attempt, **data))

    def claim(self, kind: StreamKind) -> None:
        self.over += [(self.attempt, step, tried) for step, (tried, _) in self.open.items()]
        self.attempt += 1
        self.open = {}
        self.between = []
        self.write(kind, worker="w")

    def say_between(self) -> None:
        delta = self.chance.choice("xyz")
        self.write("text", delta=delta)
        if self.between:
            delta = self.between.pop()[2] + delta
        else:
            self.order = [*(name for name in self.order if name != " "), " "]
        self.between.append(("text", "", delta))

    def store(self, kind: str, *where: Any, **data: Any) -> None:
        """Write what a checkpoint tells: what was said between steps before it is not said again."""
        if self.between:
            between = f" {len(self.recorded)}"
            self.recorded[between] = self.between
            self.order[self.order.index(" ")] = between
            self.between = []
        self.write(kind, *where, **data)

    def say(self, step: str) -> None:
        tried, spoken = self.open.setdefault(step, (1, []))
        kind = self.chance.choice(["text", "text", "thinking", "tool_call"])
        delta = self.chance.choice("abcdefgh ")
        if not spoken:
            self.order = [name for name in self.order if name != step] + [step]
        call = self.chance.choice(["c1", "c2"]) if kind == "tool_call" else ""
        more = {"id": call, "tool": "pay"} if call else {}
        self.write(kind, step, tried, delta=delta, **more)
        places = [at for at, one in enumerate(spoken) if one[:2] == (kind, call)]
        if call and places:
            spoken[places[0]] = (kind, call, spoken[places[0]][2] + delta)
        elif not call and spoken and spoken[-1][0] == kind:
            spoken[-1] = (kind, "", spoken[-1][2] + delta)
        else:
            spoken.append((kind, call, delta))

    def fail(self, step: str) -> None:
        tried, _ = self.open.get(step, (1, []))
        self.write(StreamKind.TRY_FAILED, step, tried, type="Timeout", message="")
        self.over.append((self.attempt, step, tried))
        self.open[step] = (tried + 1, [])

    def record(self, step: str) -> None:
        tried, spoken = self.open.pop(step, (1, []))
        self.store(StreamKind.STEP_RECORDED, step, tried, number=1, action="model", success=True)
        self.recorded[step] = spoken

    def late(self) -> None:
        if self.over:
            attempt, step, tried = self.chance.choice(self.over)
            self.write("text", step, tried, attempt, delta="LATE")

    def go_on(self, acts: Iterable[str]) -> None:
        for act in acts:
            free = [step for step in ("a", "b", "b/c") if step not in self.recorded]
            step = self.chance.choice(free) if free else ""
            match act:
                case "say" | "fail" | "record" if step:
                    getattr(self, act)(step)
                case "late":
                    self.late()
                case "say_between":
                    self.say_between()
                case "resumed" | "recovered":
                    self.claim(StreamKind(act))
                case "other":
                    self.write(self.chance.choice(["step_started", "gap", "of a newer version"]), step)

    def finish(self) -> Said:
        for step in list(self.open):
            self.record(step)
        self.store(StreamKind.ENDED, state="completed")
        return [one for step in self.order for one in self.recorded.get(step, [])]


ACTS = st.lists(
    st.sampled_from(["say"] * 6 + ["say_between", "fail", "record", "late", "resumed", "recovered", "other"]),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(acts=ACTS, seed=st.integers(0, 2**32), cuts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=3))
def test_exactly_the_recorded_words_remain_wherever_a_reader_connects_again(
    acts: list[str], seed: int, cuts: list[tuple[float, float]]
) -> None:
    history = History(random.Random(seed))
    history.go_on(acts)
    expected = history.finish()
    events = history.events

    assert said(fed(events).parts) == expected

    reader = Transcript()
    reached = 0
    for until, back in [*cuts, (1.0, 0.5)]:
        again_from = round(back * reached)
        reached = max(reached, round(until * len(events)))
        for each in events[again_from:reached]:
            reader.feed(each)
    assert said(reader.parts) == expected
    assert [part.id for part in reader.parts] == [part.id for part in fed(events).parts]


@settings(max_examples=100, deadline=None)
@given(acts=ACTS, seed=st.integers(0, 2**32))
def test_a_display_that_only_follows_the_changes_shows_the_same(acts: list[str], seed: int) -> None:
    history = History(random.Random(seed))
    history.go_on(acts)
    history.finish()
    transcript = Transcript()
    shown: dict[str, str] = {}
    for each in history.events:
        for change in transcript.feed(each):
            match change:
                case Added(part=part, delta=delta):
                    shown[part.id] = shown.get(part.id, "") + delta
                case Discarded(parts=parts):
                    for part in parts:
                        del shown[part.id]
                case Recorded(parts=parts):
                    assert all(shown[part.id] == part.text for part in parts)
        assert shown == {part.id: part.text for part in transcript.parts}


def test_what_is_not_recorded_when_the_execution_ends_stays_and_is_marked() -> None:
    transcript = fed(
        [
            event("text", 1, "a", 1, delta="whole"),
            event("step_recorded", 2, "a", 1),
            event("text", 3, "b", 1, delta=" half"),
            event("ended", 4, state="cancelled"),
        ]
    )
    assert transcript.text == "whole half"
    assert transcript.is_recorded("a")
    assert not transcript.is_recorded("b")
    assert transcript.is_over


def test_a_new_try_voids_the_old_one_although_its_failure_was_dropped() -> None:
    transcript = fed([event("text", 1, "a", 1, delta="no"), event("gap", 2), event("text", 3, "a", 2, delta="yes")])
    assert transcript.text == "yes"


def test_the_arguments_of_a_call_come_in_pieces_and_then_whole() -> None:
    transcript = fed(
        [
            event("tool_call", 1, "a", 1, id="1", tool="pay", delta='{"to'),
            event("tool_call", 2, "a", 1, id="2", tool="look", arguments={"at": 1}),
            event("tool_call", 3, "a", 1, id="1", delta='": "Zoë"}', arguments={"to": "Zoë"}),
        ]
    )
    first, second = transcript.parts
    assert (first.kind, first.tool, first.text, first.arguments) == (
        PartKind.TOOL_CALL,
        "pay",
        '{"to": "Zoë"}',
        {"to": "Zoë"},
    )
    assert (second.tool, second.text, second.arguments) == ("look", "", {"at": 1})


def test_a_reader_behind_the_trim_is_told() -> None:
    transcript = fed([event("text", 1, "a", 1, delta="old"), event("trimmed", 9, up_to=9)])
    assert transcript.trimmed_to == 9
    assert transcript.last == 9
