"""A step's error that the agent catches is the error that it was: on the first attempt, and on every later one."""

import http
import json
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from agent_statestore import ErrorInfo
from agent_statestore.codec import ERROR_ROOM_BYTES
from agent_statestore.codec.failures import encode_error
from agent_statestore.testing.kit.matrix import cells
from celery_agents import Run, StepFailed
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.errors import InvalidArguments, StepTimeout
from tests.celery_agents.driving import Crash, Engine


class ApiError(Exception):
    """A field that is no argument, and a default that must not come back."""

    def __init__(self, message: str, *, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class HttpStatusError(Exception):
    """Its arguments are not those of its constructor, and one of its fields is no JSON."""

    default = "of the class"

    def __init__(self, message: str, *, request: object, status_code: int, default: object = None) -> None:
        made.append("HttpStatusError")
        super().__init__(message)
        self.request = request
        self.status_code = status_code
        self.type = "overloaded"
        if default is not None:
            self.default = default  # type: ignore[assignment]


made: list[str] = []


class Reduced(Exception):
    """Says itself how it is made again."""

    def __init__(self, code: int, hint: str) -> None:
        super().__init__(f"{hint}: {code}")
        self.code, self.hint = code, hint

    def __reduce__(self) -> Any:
        return Reduced, (self.code, self.hint)


class ReducedBadly(ApiError):
    """Forgets a field."""

    def __reduce__(self) -> Any:
        return ReducedBadly, self.args


class ReducedByAnother(ApiError):
    """Wants another function to be called."""

    def __reduce__(self) -> Any:
        return exec, ("made.append('exec')",)


class Slotted(ValueError):
    __slots__ = ("place",)

    def __init__(self, place: str) -> None:
        super().__init__("misplaced")
        self.place = place


class Rated(ExceptionGroup[Exception]):
    rate: float = 0.0

    def derive(self, excs: Any) -> "Rated":
        return Rated(self.message, excs)


class Registering(Exception):
    """Counts what is made of it."""

    def __init_subclass__(cls) -> None:
        made.append("subclass")

    def __init__(self, handle: object, text: str) -> None:
        made.append("init")
        super().__init__(handle)
        self.text = text

    @property
    def computed(self) -> str:
        made.append("property")
        return "?"


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - any is to come back
        return error
    raise AssertionError("nothing was raised")


def chained() -> None:
    try:
        raise ApiError("slow", status=429)
    except ApiError as error:
        raise LookupError("no page") from error


def noted() -> None:
    error = KeyError(("a", 1))
    error.add_note("while looking")
    error.add_note("in the cellar")
    raise error


def grouped() -> None:
    raise ExceptionGroup("two", [ApiError("slow", status=429), ExceptionGroup("in", [FileNotFoundError(2, "no", "x")])])


def rated() -> None:
    group = Rated("all", [ValueError(1)])
    group.rate = 0.5
    raise group


def missing_file() -> None:
    Path("/nowhere/file.txt").read_text()


def bad_json() -> None:
    json.loads("{")


def bad_code() -> None:
    compile("a b", "made.py", "exec")


def no_attribute() -> None:
    object().nothing  # type: ignore[attr-defined]  # noqa: B018


def no_module() -> None:
    import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401


def fails_with(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def everything(error: BaseException | None) -> Any:
    """What can be seen of an error that came back, tracebacks aside."""
    if error is None:
        return None
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    fields = {name: value for name, value in vars(error).items() if name != "__notes__"}
    slots = [
        getattr(error, name, None)
        for name in ("errno", "strerror", "filename", "name", "path", "place", "lineno", "text", "code", "doc", "pos")
    ]
    return (
        type(error),
        str(error),
        [everything(arg) if isinstance(arg, BaseException) else arg for arg in error.args if not members],
        fields,
        slots,
        getattr(error, "__notes__", []),
        everything(error.__cause__),
        [everything(member) for member in members],
    )


def caught_twice(engine: Engine, fail: Callable[[], object]) -> list[BaseException]:
    """What an agent catches of its step, on the first attempt and on the next."""
    seen: list[BaseException] = []

    def work(run: Run, input: None) -> str:
        try:
            run.step("fail", fail)
        except Exception as error:  # noqa: BLE001 - any is to come back
            seen.append(error)
        if len(seen) == 1:
            raise Crash
        return "handled"

    execution_id = engine.start(engine.agent(work, name=f"agent{len(engine.registry.agents)}"))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "handled"
    return seen


@cells(
    fail={
        "a field beside the arguments": fails_with(ApiError("slow", status=429)),
        "OSError": missing_file,
        "OSError with two files": fails_with(OSError(18, "no link", "a", None, "b")),
        "OSError without arguments": fails_with(ConnectionResetError()),
        "JSONDecodeError": bad_json,
        "SyntaxError": bad_code,
        "AttributeError": no_attribute,
        "ImportError": no_module,
        "its own reduce": fails_with(Reduced(3, "thrice")),
        "a reduce that forgets": fails_with(ReducedBadly("slow", status=429)),
        "a reduce by another function": fails_with(ReducedByAnother("slow", status=429)),
        "slots": fails_with(Slotted("kitchen")),
        "ours": fails_with(InvalidArguments("search", ["query: missing"])),
        "ours, of two classes": fails_with(StepTimeout("search", 1.5)),
        "a tuple": fails_with(KeyError((1, ("a", [2])))),
        "cause": chained,
        "notes": noted,
        "group": grouped,
        "a group of another class": rated,
    }
)
def test_an_error_is_the_same_on_every_attempt(engine: Engine, fail: Callable[[], object]) -> None:
    original = everything(raised(fail))
    made.clear()
    first, again = caught_twice(engine, fail)
    assert everything(first) == original
    assert everything(again) == original
    assert made == []


def test_members_of_a_group_are_caught_by_their_class(engine: Engine) -> None:
    for error in caught_twice(engine, grouped):
        assert isinstance(error, ExceptionGroup)
        found: list[Any] = []
        try:
            raise error
        except* ApiError as some:
            found += [one.status for one in some.exceptions]
        except* OSError as others:
            found.append(others)
        assert found[0] == 429
        assert len(found) == 2


class Odd(BaseException):
    """Not derived from Exception."""


@cells(
    fail={
        "a field": fails_with(HttpStatusError("busy", request=object(), status_code=429)),
        "a field with a default": fails_with(HttpStatusError("busy", request=1, status_code=429, default=object())),
        "an argument": fails_with(OSError(2, "no", object())),
        "bytes": fails_with(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd")),
        "a number of another class": fails_with(ApiError("slow", status=http.HTTPStatus.TOO_MANY_REQUESTS)),
        "a long text": fails_with(ApiError("slow", status="x" * 20_000)),  # type: ignore[arg-type]
        "a class that counts": fails_with(Registering(object(), "text")),
        "a group of what is no Exception": fails_with(BaseExceptionGroup("g", [Odd("odd"), ValueError("v")])),
        "pydantic": lambda: pydantic.TypeAdapter(int).validate_python("x"),
    }
)
def test_a_stand_in_is_of_the_class_and_names_what_is_lost(engine: Engine, fail: Callable[[], object]) -> None:
    original = raised(fail)
    made.clear()
    first, again = caught_twice(engine, fail)
    alike = [
        (str(one), repr(one), repr(one.args), vars(one), one.not_kept, [type(base) for base in type(one).__mro__[1:]])
        for one in (first, again)
        if isinstance(one, StepFailed)
    ]
    assert len(alike) == 2, (first, again)
    assert alike[0] == alike[1]
    kind = type(original)
    if kind.__module__ == "pydantic_core._pydantic_core":
        kind = ValueError  # nothing can be derived from pydantic's
    elif isinstance(original, BaseExceptionGroup):
        kind = ExceptionGroup
    else:
        assert str(again) == str(original)
        assert first.not_kept  # type: ignore[attr-defined]
        assert f"not kept: {', '.join(first.not_kept)}" in repr(first)  # type: ignore[attr-defined]
    assert isinstance(first, kind)
    assert isinstance(again, kind)
    assert made == []
    assert isinstance(pickle.loads(pickle.dumps(again)), StepFailed)


def test_a_stand_in_has_the_fields_that_were_kept_and_no_other(engine: Engine) -> None:
    error = HttpStatusError("busy", request=object(), status_code=429, default=object())
    for one in caught_twice(engine, fails_with(error)):
        assert isinstance(one, HttpStatusError)
        assert isinstance(one, StepFailed)
        assert (one.status_code, one.type, one.args) == (429, "overloaded", ("busy",))
        assert one.not_kept == ("request", "default")
        for name in one.not_kept:
            with pytest.raises(AttributeError, match=f"'{name}' of .*HttpStatusError was not kept"):
                getattr(one, name)
    for two in caught_twice(engine, fails_with(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"))):
        assert isinstance(two, UnicodeDecodeError)
        assert (two.encoding, two.start, two.end, two.reason) == ("utf-8", 0, 1, "odd")
        with pytest.raises(AttributeError, match="was not kept"):
            _ = two.object
    for three in caught_twice(engine, fails_with(ApiError("slow", status=http.HTTPStatus.TOO_MANY_REQUESTS))):
        assert isinstance(three, ApiError)
        assert (three.status, three.not_kept) == (429, ("status",))  # type: ignore[attr-defined]


def test_an_error_that_was_caught_may_be_raised_on_with_more(engine: Engine) -> None:
    """As the failure of the execution, which Celery and the store are told of."""
    lost = HttpStatusError("busy", request=object(), status_code=429)

    def work(run: Run, input: None) -> None:
        try:
            run.step("fail", fails_with(lost))
        except HttpStatusError as error:
            error.add_note("on Tuesday")
            raise error from KeyError("why")

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    info = engine.context(execution_id).error
    assert info is not None
    assert (info.type, info.message, info.notes) == (f"{__name__}:HttpStatusError", "busy", ("on Tuesday",))
    assert info.cause is not None
    assert info.cause.args == ("why",)
    assert info.traceback is not None
    assert "fails_with" in info.traceback or "in fail" in info.traceback


class Endless(Exception):
    pass


def test_any_error_fits_into_its_record() -> None:
    own_cause = Endless("a")
    own_cause.__cause__ = own_cause
    chain = Endless(0)
    for number in range(1, 2_000):
        following = Endless(number)
        following.__cause__ = chain
        chain = following
    noted = Endless("n")
    for _ in range(1_000):
        noted.add_note("\x00" * 10_000)
    many = Endless("m")
    vars(many).update({f"field{number}": "é" * 1_000 for number in range(1_000)})
    for error in (
        own_cause,
        chain,
        noted,
        many,
        ExceptionGroup("g", [ValueError("é" * 100_000)] * 1_000),
        Endless("\x00" * 100_000),
    ):
        info = describe(error, with_traceback=True)
        assert len(encode_error(info, 0).encode()) < ERROR_ROOM_BYTES
        again = revive(info)
        assert isinstance(again, type(error))
        assert describe(again, with_traceback=True).not_kept == info.not_kept


LAZY = """
import sys
sys.path.insert(0, {folder!r})
import importlib.util, types
from agent_statestore import ErrorInfo
from celery_agents.engine.journal.revival import revive

spec = importlib.util.find_spec("lazy_one")
loader = importlib.util.LazyLoader(spec.loader)
spec.loader = loader
module = importlib.util.module_from_spec(spec)
sys.modules["lazy_one"] = module
loader.exec_module(module)

import getter
touched = []
class Meta(type):
    def __getattr__(cls, name):
        touched.append(name)
        return ValueError
class Holder(metaclass=Meta):
    @property
    def Error(self):
        touched.append("property")
        return ValueError
class Described:
    def __get__(self, one, kind):
        touched.append("get")
        return ValueError
Holder.Described = Described()
before = set(sys.modules)
names = [
    "lazy_one:Error", "getter:Error", "getter:made", "never_loaded:Error", "getter:sub.Error", "os:path.error",
    "__main__:Holder.Error", "__main__:Holder.Other", "__main__:Holder.Described", "builtins:eval", "builtins:print",
    "builtins:int", "builtins:SystemExit", "", ":", "a", "os:", "builtins:ValueError.__class__", "sys:modules",
]
for name in names:
    error = revive(ErrorInfo(type=name, message="m", args=("print(1)",), bases=(name,)))
    assert type(error).__name__ == "StepFailed", (name, error)
assert touched == [], touched
assert not getter.touched, getter.touched
assert set(sys.modules) == before, set(sys.modules) - before
assert "Error" not in object.__getattribute__(module, "__dict__")
print("nothing happened")
"""


def test_a_stored_name_imports_nothing_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "lazy_one.py").write_text("class Error(Exception): pass\n")
    (tmp_path / "getter.py").write_text(
        "touched = []\n"
        "def __getattr__(name):\n"
        "    if not name.startswith('__'): touched.append(name)\n"
        "    return ValueError\n"
        "made = ValueError('x')\n"
    )
    (tmp_path / "main.py").write_text(LAZY.format(folder=str(tmp_path)))
    ended = subprocess.run([sys.executable, str(tmp_path / "main.py")], capture_output=True, text=True, check=False)
    assert ended.stdout == "nothing happened\n", ended.stderr


def test_a_record_without_fields_is_read() -> None:
    """As a store has it from before fields were kept, and as people write it by hand."""
    short = ErrorInfo(type="celery_agents.errors:InvalidArguments", message="", args=("search", ["query: missing"]))
    made_again = InvalidArguments("search", ["query: missing"])
    revived = revive(ErrorInfo(type=short.type, message=str(made_again), args=short.args))
    assert type(revived) is InvalidArguments
    assert revived.problems == ["query: missing"]


def test_a_revived_error_shares_nothing_with_its_record() -> None:
    info = describe(ApiError("slow", status=[1]))  # type: ignore[arg-type]
    first = revive(info)
    first.status.append(2)  # type: ignore[attr-defined]
    assert revive(info).status == [1]  # type: ignore[attr-defined]


def test_a_class_that_is_not_loaded_leaves_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lazy_library")
    kind = type("Lost", (OSError,), {"__module__": "lazy_library"})
    module.Lost = kind  # type: ignore[attr-defined]
    error = kind(5, "lost")
    error.hint = "cable"
    info = describe(error)
    revived: Any = revive(info)
    assert isinstance(revived, StepFailed)
    assert (revived.errno, revived.hint, revived.type) == (5, "cable", "lazy_library:Lost")
    assert "lazy_library:OSError" not in revived.bases


class Refused(Exception):
    """A kind of error that others are made of."""


class WithStatus(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def made_under_the_name_of(kind: type[Exception]) -> type[Exception]:
    """A class as frameworks make them: of two others, under the name of one."""
    made = type(kind.__name__, (WithStatus, kind), {"__module__": kind.__module__})
    made.__qualname__ = kind.__qualname__
    return made


HIDDEN = made_under_the_name_of(Refused)


def test_a_class_that_bears_the_name_of_another_one_is_found() -> None:
    again = revive(describe(HIDDEN(429)))
    assert type(again) is HIDDEN
    assert isinstance(again, WithStatus)
    assert again.status == 429
    assert type(revive(describe(Refused("no")))) is Refused
