"""A typed value comes back as it was, type included, wherever it goes through JSON, or is refused by name."""

import collections
import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pydantic
import pytest
from pydantic.alias_generators import to_camel

from agent_statestore import AgentState, SignalKind
from agent_statestore.testing.kit.matrix import cells
from celery_agents import InvalidArguments, InvalidInput, InvalidResult, Retry, Run, tool
from celery_agents.define import types
from celery_agents.errors import RegistrationError
from tests.celery_agents.approving import asked, decide
from tests.celery_agents.driving import Calls, Crash, Engine


@dataclass
class Approved:
    reason: str


@dataclass
class Rejected:
    reason: str


@dataclass
class RejectedForGood(Rejected):
    until: dt.date = dt.date(2030, 1, 1)


class Message(pydantic.BaseModel):
    role: str


class ToolMessage(Message):
    tool_calls: list[str]


class Conversation(pydantic.BaseModel):
    messages: list[Message]
    verdict: Approved | Rejected
    before: "Conversation | None" = None


class Account(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=to_camel)

    credit_limit: int = 0
    owner_name: str


class Renamed(pydantic.BaseModel):
    written: int = pydantic.Field(serialization_alias="w")
    read: int = pydantic.Field(validation_alias="r")


class Swapped(pydantic.BaseModel):
    a: int = pydantic.Field(alias="b")
    b: int = pydantic.Field(alias="a")


class Computed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    x: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.x


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    day: dt.date


class StrictToo(Strict):
    pass


class LooksMarked(pydantic.BaseModel):
    kind: str = pydantic.Field(alias="$class")
    value: int = pydantic.Field(0, alias="$value")


class LooksMarkedToo(LooksMarked):
    pass


class Colour(enum.StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int


class Vector(NamedTuple):
    x: int


@dataclass
class Plus:
    left: "Term"
    right: "Term"


@dataclass
class Times:
    left: "Term"
    right: "Term"


Term = Plus | Times | int
UUID = uuid.UUID(int=7)

CARRIED: dict[str, tuple[Any, Any]] = {
    "first member": (Approved | Rejected, Approved("a")),
    "second member": (Approved | Rejected, Rejected("b")),
    "subclass of a member": (Approved | Rejected, RejectedForGood("b")),
    "subclass": (Message, ToolMessage(role="r", tool_calls=["c"])),
    "subclass in a list": (list[Message], [Message(role="a"), ToolMessage(role="r", tool_calls=["c"])]),
    "subclass in a dict": (dict[int, Message], {1: ToolMessage(role="r", tool_calls=["c"])}),
    "subclass in a union": (Message | None, ToolMessage(role="r", tool_calls=["c"])),
    "fields of a model": (
        Conversation,
        Conversation(
            messages=[ToolMessage(role="r", tool_calls=[])],
            verdict=Rejected("b"),
            before=Conversation(messages=[], verdict=RejectedForGood("c")),
        ),
    ),
    "recursive": (Term, Plus(1, Times(Plus(2, 3), 4))),
    "alias": (Account, Account(creditLimit=5000, ownerName="o")),
    "alias and union": (Account | Approved, Account(creditLimit=5000, ownerName="o")),
    "other alias each way": (Renamed, Renamed(written=1, r=2)),
    "swapped aliases": (Swapped, Swapped(a=1, b=2)),
    "computed field": (Computed, Computed(x=1)),
    "strict subclass": (dict[str, Strict | Approved], {"a": StrictToo(day=dt.date(2026, 1, 2))}),
    "looks like a mark": (
        list[LooksMarked],
        [LooksMarked(**{"$class": "LooksMarked"}), LooksMarkedToo(**{"$class": "x"})],
    ),
    "a key like a mark": (dict[str, str], {"$class": "Rejected", "$value": "x"}),
    "an enum or its text": (list[Colour | str], [Colour.RED, "red"]),
    "list or tuple": (list[list[int] | tuple[int, ...]], [[1], (1,)]),
    "date or datetime": (list[dt.date | dt.datetime], [dt.date(2026, 1, 1), dt.datetime(2026, 1, 1)]),  # noqa: DTZ001
    "UUID or its text": (list[str | uuid.UUID], [UUID, str(UUID)]),
    "bytes or text": (list[bytes | str], [b"x", "x"]),
    "path or text": (list[Path | str], [Path("x"), "x"]),
    "named tuples": (list[Point | Vector], [Point(1), Vector(1)]),
    "lists of members": (list[Approved] | list[Rejected], [Rejected("a")]),
    "decimal or float": (list[Decimal | float], [Decimal("1.5"), 1.5]),
    "keys": (dict[dt.date, int], {dt.date(2026, 1, 1): 1}),
    "defaultdict": (collections.defaultdict[str, int], collections.defaultdict(int, a=1)),
    "an int for a float": (float, 3),
    "plain": (dict[str, Any], {"a": [1, 1.0, True, None, "x", {"b": []}]}),
}


@dataclass
class Unlike:
    """Comes back as another one: its field is no argument."""

    x: int = 0
    seen: list[int] = dataclasses.field(default_factory=list, init=False)


def raises(value: int) -> int:
    raise KeyError(value)


class Hidden(pydantic.BaseModel):
    shown: int = 0
    hidden: int = pydantic.Field(0, exclude=True)
    _private: int = 0


def with_private(value: int) -> Hidden:
    hidden = Hidden()
    hidden._private = value
    return hidden


class Holder(pydantic.BaseModel):
    what: Any


def local() -> type[Message]:
    class Local(Message):
        pass

    return Local


LOCALS = [local(), local()]

REFUSED: dict[str, tuple[Any, Callable[[], Any], str]] = {
    "keys that collide": (Any, lambda: {1: "a", "1": "b"}, r"\$: the key 1 of type int"),
    "a key None": (Any, lambda: [{"x": {None: 1}}], r"\$\[0\]\['x'\]: the key None of type NoneType"),
    "a key that changes": (dict, lambda: {1: "a"}, r"\$: the key 1 of type int"),
    "a key of a union": (dict[str | int, str], lambda: {"1": "a", 1: "b"}, r"\$"),
    "a secret": (Any, lambda: {"a": [pydantic.SecretStr("s3cret")]}, r"\$\['a'\]\[0\]: a SecretStr would be masked"),
    "a secret in a field": (Holder, lambda: Holder(what=pydantic.SecretStr("s3cret")), r"\$\.what: a SecretStr"),
    "an excluded field": (Hidden, lambda: Hidden(hidden=5), r"\$\.hidden: an int"),
    "an excluded field, no annotation": (Any, lambda: [Hidden(hidden=5)], r"\$\[0\]\.hidden: it would be left out"),
    "a private attribute": (Hidden, lambda: with_private(5), r"\$\['_private'\]"),
    "a field that is no argument": (Unlike, lambda: unlike(), r"\$\.seen: 1 items"),
    "a bool for an int": (list[int], lambda: [1, True], r"\$\[1\]: a bool would come back as an int"),
    "a subclass of a builtin": (dict[str, int], lambda: collections.Counter("aa"), r"\$: a Counter"),
    "a tuple for a sequence": (dict[str, Any], lambda: {"a": (1, 2)}, r"\$\['a'\]: a tuple would come back as a list"),
    "a date under Any": (
        dict[str, Any],
        lambda: {"a": dt.date(2026, 1, 1)},
        r"\$\['a'\]: a date would come back as a str",
    ),
    "an int beyond floats": (float, lambda: 2**60 + 1, r"\$: an int"),
    "a validator that changes": (Annotated[int, pydantic.AfterValidator(lambda x: x + 1)], lambda: 1, r"another value"),
    "a validator that raises": (Annotated[int, pydantic.AfterValidator(raises)], lambda: 1, "KeyError"),
    "one of two classes of a name": (Message, lambda: LOCALS[0](role="r"), "several classes|would come back"),
}


def unlike() -> Unlike:
    made = Unlike()
    made.seen.append(1)
    return made


def returning(annotation: Any, value: Any) -> Callable[[], Any]:
    def make() -> Any:
        return value

    make.__annotations__ = {"return": annotation}
    return make


@cells(case=CARRIED)
def test_a_result_is_the_same_at_once_and_after_a_crash(case: tuple[Any, Any]) -> None:
    annotation, value = case
    engine, seen = Engine(), []
    make = returning(annotation, value)

    def work(run: Run, input: None) -> None:
        seen.append(run.step("make", make))
        if len(seen) == 1:
            raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.error is None
    assert seen == [value, value]
    expected = 3.0 if value == 3 else value
    assert [repr(one) for one in seen] == [repr(expected)] * 2


@cells(case=CARRIED)
def test_an_input_and_an_output_are_read_as_they_were_given(case: tuple[Any, Any]) -> None:
    annotation, value = case
    engine, seen = Engine(), []

    def work(run: Run, input: Any) -> Any:
        seen.append(input)
        return input

    work.__annotations__ = {"run": Run, "input": annotation, "return": annotation}
    made = engine.agent(work)
    execution_id = engine.start(made, value)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.error is None
    assert repr(seen[0]) == repr(3.0 if value == 3 else value)
    assert repr(made.decode_input(outcome.output)) == repr(seen[0])


@cells(case=REFUSED)
def test_what_cannot_be_carried_is_the_steps_failure_and_never_runs_again(
    case: tuple[Any, Callable[[], Any], str],
) -> None:
    annotation, make_value, named = case
    engine, calls, seen = Engine(), Calls(), []

    def work(run: Run, input: None) -> str:
        def called() -> Any:
            calls("made")
            return make_value()

        called.__annotations__ = {"return": annotation}
        with pytest.raises(InvalidResult, match=named) as refused:
            run.options(retry=Retry(retries=3, first_delay=dt.timedelta(milliseconds=1))).step("make", called)
        seen.append(str(refused.value))
        if len(seen) == 1:
            raise Crash
        return str(refused.value)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.error is None
    assert calls.made == ["made"]
    assert seen == [seen[0]] * 2
    step = engine.context(execution_id).steps[0]
    assert step.result is not None
    assert step.result.error is not None
    assert step.result.error.type.endswith(":InvalidResult")
    assert "s3cret" not in outcome.output


def test_an_output_that_cannot_be_carried_fails_the_execution_by_name() -> None:
    engine = Engine()

    def work(run: Run, input: None) -> dict[str, Any]:
        return {"a": (1, 2)}

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    context = engine.context(execution_id)
    assert context.state is AgentState.FAILED
    assert context.error is not None
    assert context.error.message == "invalid result of 'work': $['a']: a tuple would come back as a list"


def test_an_input_that_no_worker_could_read_is_refused_where_it_is_given() -> None:
    engine = Engine()

    def work(run: Run, input: Hidden) -> None:
        raise NotImplementedError

    def anything(run: Run, input: Any) -> None:
        raise NotImplementedError

    with pytest.raises(InvalidInput, match=r"input: \$\.hidden: an int would come back with another value"):
        engine.start(engine.agent(work), Hidden(hidden=5))
    with pytest.raises(InvalidInput, match=r"the key 1 of type int"):
        engine.start(engine.agent(anything), {1: "a", "1": "b"})
    assert engine.store.find().items == ()


SHOWN = {
    "a secret": (pydantic.SecretStr, "masks a secret"),
    "a secret inside": (list[pydantic.SecretBytes | None], "masks a secret"),
    "tuples as keys": (dict[tuple[int, int], str], "a tuple is not read"),
    "None as a key": (dict[None, str], "None is not read"),
    "a function": (Callable[[], int], "a function is no JSON"),
    "an iterator": (collections.abc.Iterable[int], "gone through only once"),
    "a required field that is excluded": (
        pydantic.create_model("Excluded", x=(int, pydantic.Field(exclude=True))),
        "required and excluded",
    ),
}


@cells(case=SHOWN)
def test_what_the_annotation_alone_shows_is_refused_before_anything_runs(case: tuple[Any, str]) -> None:
    annotation, named = case
    engine, calls = Engine(), Calls()

    def takes(run: Run, input: Any) -> None: ...

    def gives(run: Run, input: None) -> Any: ...

    def asks(argument: Any) -> None: ...

    def answers() -> Any:
        calls("answers")

    takes.__annotations__ = {"run": Run, "input": annotation}
    for function in (gives, answers):
        function.__annotations__ = {"return": annotation}
    asks.__annotations__ = {"argument": annotation}
    for function in (takes, gives):
        with pytest.raises(RegistrationError, match=named):
            engine.agent(function)
    with pytest.raises(RegistrationError, match=named):
        tool(registry=engine.registry)(asks)

    def work(run: Run, input: None) -> None:
        run.step("answers", answers)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, RegistrationError)
    assert calls.made == []


class Revealed(pydantic.BaseModel):
    secret: pydantic.SecretStr

    @pydantic.field_serializer("secret")
    def _reveal(self, secret: pydantic.SecretStr) -> str:
        return secret.get_secret_value()


def test_a_secret_whose_field_says_how_it_is_written_is_carried() -> None:
    back, output = types.round_trip(types.adapter_for(Revealed, "x"), "key", Revealed(secret="s3cret"))
    assert (back.secret.get_secret_value(), output) == ("s3cret", {"secret": "s3cret"})


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_what_was_stored_without_marks_and_by_name_is_still_read() -> None:
    stored: list[tuple[Any, Any, Any]] = [
        (Account, {"credit_limit": 5000, "owner_name": "o"}, Account(creditLimit=5000, ownerName="o")),
        (Approved | Rejected, {"reason": "a"}, Approved("a")),
        (list[Message], [{"role": "a"}], [Message(role="a")]),
        (dict[str, Any], {"$class": "Rejected"}, {"$class": "Rejected"}),
    ]
    for annotation, output, value in stored:
        assert types.from_record(types.adapter_for(annotation, "x"), output, "x") == value


def test_plain_json_has_no_marks_and_only_what_needs_one_has() -> None:
    written = {
        name: types.round_trip(types.adapter_for(annotation, name), "key", value)[1]
        for name, (annotation, value) in CARRIED.items()
    }
    assert written["second member"] == {"$class": "Rejected", "reason": "b"}
    assert written["subclass in a list"] == [{"role": "a"}, {"$class": "ToolMessage", "role": "r", "tool_calls": ["c"]}]
    assert written["alias"] == {"creditLimit": 5000, "ownerName": "o"}
    assert written["first member"] == {"reason": "a"}
    assert written["plain"] == CARRIED["plain"][1]


def test_a_stored_name_leads_to_no_class_but_members_and_loaded_subclasses() -> None:
    for label in ("Point", "os:system", "subprocess:Popen", "Message", "antigravity:x", "RejectedForNow", ""):
        for annotation, adapted in ((Approved | Rejected, {"reason": "a"}), (list[Message], [{"role": "a"}])):
            output = [{"$class": label, **adapted[0]}] if isinstance(adapted, list) else {"$class": label, **adapted}
            if label == "Message" and annotation == list[Message]:
                continue
            with pytest.raises(pydantic.ValidationError, match="no class that may stand here"):
                types.from_record(types.adapter_for(annotation, "x"), output, "x")


def test_an_answer_from_outside_names_no_class() -> None:
    engine, seen = Engine(), []

    def work(run: Run, input: None) -> None:
        seen.append(run.ask("?", schema=Message))

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.send(execution_id, SignalKind.ANSWER, "ask", {"$class": "ToolMessage", "role": "r", "tool_calls": []})
    engine.execute(execution_id)

    assert seen == [Message(role="r")]


# -- tools -------------------------------------------------------------------------------------------------------------


def test_a_tools_arguments_are_shown_by_alias_and_with_their_class_and_read_so_when_edited() -> None:
    engine, paid = Engine(), []

    @tool(registry=engine.registry, requires_approval=True)
    def pay(verdict: Approved | Rejected, account: Account, day: Strict) -> None:
        """Pays."""
        paid.append((verdict, account, day))

    arguments = (Rejected("b"), Account(creditLimit=5, ownerName="o"), Strict(day=dt.date(2026, 1, 2)))

    def work(run: Run, input: None) -> None:
        run.tool(pay, *arguments)

    execution_id = engine.start(engine.agent(work))
    shown = asked(engine, execution_id).prompt["arguments"]
    decide(engine, execution_id, asked(engine, execution_id), arguments=shown)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.error is None
    assert shown == {
        "verdict": {"$class": "Rejected", "reason": "b"},
        "account": {"creditLimit": 5, "ownerName": "o"},
        "day": {"day": "2026-01-02"},
    }
    assert paid == [arguments]


def test_an_argument_that_loses_something_in_its_record_is_refused_and_the_tool_is_not_called() -> None:
    engine, calls = Engine(), Calls()

    @tool(registry=engine.registry)
    def note(what: Any) -> None:
        """Notes."""
        calls(what)

    def work(run: Run, input: None) -> str:
        for what in ({1: "a", "1": "b"}, [pydantic.SecretStr("s3cret")], Hidden(hidden=5)):
            with pytest.raises(InvalidArguments, match=r"\$"):
                run.tool(note, what)
        return "done"

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.error is None
    assert calls.made == []
