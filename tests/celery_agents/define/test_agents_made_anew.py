"""Two agents of one name: a second one is refused unless it is the same, and anything that can be called works."""

import functools
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_statestore.testing.kit.matrix import cells
from celery_agents import AsyncRun, BufferMemory, RegistrationError, Registry, Run, agent, tool
from celery_agents.loop import Complete, loop_agent
from tests.celery_agents.driving import Engine

Make = Callable[[Registry, Any], Any]


def by_closure(registry: Registry, role: Any) -> Any:
    @agent(registry=registry)
    def answer(run: Run, input: str) -> str:
        return f"{role} says {input}"

    return answer


def by_helper(registry: Registry, role: Any) -> Any:
    def say(text: str) -> str:
        return f"{role} says {text}"

    @agent(registry=registry)
    def answer(run: Run, input: str) -> str:
        return say(input)

    return answer


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return called


def under_a_decorator(registry: Registry, role: Any) -> Any:
    @agent(registry=registry)
    @logged
    def answer(run: Run, input: str) -> str:
        return f"{role} says {input}"

    return answer


def _answer(role: Any, run: Run, input: str) -> str:
    """Answers in a role."""
    return f"{role} says {input}"


def by_partial(registry: Registry, role: Any) -> Any:
    return agent(registry=registry)(functools.partial(_answer, role))


class Answer:
    """Answers in a role."""

    def __init__(self, role: Any) -> None:
        self.role = role
        self.name = self.queue = "not the agent's"

    def __call__(self, run: Run, input: str) -> str:
        return f"{run.step('role', lambda: self.role)} says {input}"

    def method(self, run: Run, input: str) -> str:
        return self(run, input)


def by_object(registry: Registry, role: Any) -> Any:
    return agent(registry=registry)(Answer(role))


def by_method(registry: Registry, role: Any) -> Any:
    return agent(registry=registry)(Answer(role).method)


def by_option(registry: Registry, role: Any) -> Any:
    @agent(registry=registry, queue=role)
    def answer(run: Run, input: str) -> str:
        return f"pirate says {input}"

    return answer


def by_loop(registry: Registry, role: Any) -> Any:
    @loop_agent(registry=registry, input=str, output=str)
    def answer(context: Any) -> Complete:
        return Complete(output=f"{role} says {context.input}")

    return answer


MAKES = (by_closure, by_helper, under_a_decorator, by_partial, by_object, by_method, by_option, by_loop)


@cells(make={make.__name__: make for make in MAKES})
def test_an_agent_with_other_values_is_refused_and_an_equal_one_is_not(make: Make) -> None:
    engine = Engine()
    pirate = make(engine.registry, "pirate")
    with pytest.raises(RegistrationError, match=r"with other values or options: give each that"):
        make(engine.registry, "lawyer")
    again = make(engine.registry, "pirate")
    assert engine.registry.agent(pirate.name) is again
    outcome = engine.execute(engine.start(again, "hi"))
    assert outcome is not None
    assert outcome.output == "pirate says hi", outcome.error


# Two values of each option of `agent`.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "max_steps": (1, 2),
    "max_attempts": (1, 2),
    "queue": ("one", "other"),
    "priority": (1, 2),
    "deadline": (timedelta(1), timedelta(2)),
    "max_tokens": (1, 2),
    "max_cost": (1, 2),
    "on_limit": ("fail", "ask"),
    "session_policy": ("queue", "reject"),
    "concurrency": (1, 2),
    "concurrency_key": (str, repr),
    "rate_limit": ("1/s", "2/s"),
    "memory": (BufferMemory(max_tokens=1), BufferMemory(max_tokens=2)),
}


def test_no_option_may_differ() -> None:
    assert {*OPTIONS} == {*inspect.signature(agent).parameters} - {"function", "name", "registry"}
    passed = []
    for name, (one, other) in OPTIONS.items():
        registry, more = Registry(), {"concurrency": 1} if name == "concurrency_key" else {}
        for value in (one, one):
            agent(name="answer", registry=registry, **{name: value}, **more)(functools.partial(_answer, 1))
        try:
            agent(name="answer", registry=registry, **{name: other}, **more)(functools.partial(_answer, 1))
        except RegistrationError:
            continue
        passed.append(name)
    assert passed == []


def test_what_cannot_be_compared_is_refused() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    for make in (object, Odd):
        registry = Registry()
        by_closure(registry, make())
        with pytest.raises(RegistrationError, match="other values"):
            by_closure(registry, make())


@cells(make={make.__name__: make for make in (by_partial, by_object)})
def test_a_callable_is_named_and_described_as_what_is_inside(make: Make) -> None:
    made = make(Registry(), "pirate")
    assert made.name in ("_answer", "Answer")
    assert made.description == "Answers in a role."
    assert made.queue is None
    assert list(inspect.signature(made.function).parameters) == ["run", "input"]


def test_a_tool_of_a_partial_or_an_object_works() -> None:
    class Add:
        """Adds."""

        def __call__(self, one: int, other: int) -> int:
            return one + other

    def add(one: int, other: int) -> int:
        """Adds."""
        return one + other

    for function, arguments in ((functools.partial(add, 1), {"other": 2}), (Add(), {"one": 1, "other": 2})):
        made: Any = tool(registry=Registry())(function)
        assert made(**arguments) == 3
        assert made.description == "Adds."
        assert made.name in ("add", "Add")


def test_a_plain_decorator_does_not_hide_that_a_function_is_async(engine: Engine) -> None:
    @logged
    async def work(run: AsyncRun, input: int) -> int:
        return input + await run.step("one", lambda: 1)

    class Works:
        async def __call__(self, run: AsyncRun, input: int) -> int:
            return input + await run.step("one", lambda: 1)

    @loop_agent(registry=Registry(), input=None, output=str)
    async def looping(context: Any) -> Complete:
        return Complete(output="its work is plain")

    assert not looping.is_async
    for function in (work, functools.partial(work), Works(), logged(functools.partial(work))):
        made = engine.agent(function, name=f"agent{len(engine.registry.agents)}")
        assert made.is_async
        outcome = engine.execute(engine.start(made, 1))
        assert outcome is not None
        assert outcome.output == 2, outcome.error


LOADED = """
import functools
from celery_agents import Registry, agent
from celery_agents.loop import Complete, loop_agent
if "registry" not in globals(): registry = Registry()
def logged(function):
    return functools.wraps(function)(lambda *args: function(*args))
def make(role):
    @agent(registry=registry, name=role)
    def answer(run, input: str) -> str: return role
make("pirate")
make("lawyer")
@agent(registry=registry)
@logged
def decorated(run, input: str) -> str: return "a"
@loop_agent(registry=registry, input=str, output=str)
def looping(context): return Complete(output="a")
"""


def test_a_module_may_be_loaded_again_and_define_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "made_agents.py").write_text(LOADED)
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(lambda: sys.modules.pop("made_agents", None))
    module = importlib.import_module("made_agents")
    first = module.registry.agents
    assert len(first) == 4
    importlib.reload(module)
    assert [one.name for one in module.registry.agents] == [one.name for one in first]
    assert not set(module.registry.agents) & set(first)
    # Edited before it is loaded again: a file's time and size tell Python that it has changed.
    (tmp_path / "made_agents.py").write_text(
        LOADED.replace('"a"', '"another"').replace("return role", "return role * 2")
    )
    importlib.reload(module)
    (tmp_path / "made_agents.py").write_text(
        LOADED + "@agent(registry=registry)\ndef looped(run, input: str) -> str: return 'a'\n" * 2
    )
    with pytest.raises(RegistrationError, match="defined twice"):
        importlib.reload(module)


def test_a_module_that_is_loaded_as_main_and_by_name_gets_advice(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "from celery_agents import agent\n@agent\ndef work(run, input): pass\n"
        "if __name__ == '__main__': import theirs\n"
    )
    ended = subprocess.run([sys.executable, "theirs.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "loaded twice, as __main__ and as theirs. Put the agents into a module" in ended.stderr, ended.stderr
