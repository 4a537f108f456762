"""Tools that a function makes: each caller has its own, and under their common name none is found any more."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celery_agents import RegistrationError, Registry, Run, Tool, tool
from celery_agents.loop import Complete, UseTool, loop_agent
from celery_agents.testing import LocalAgents
from tests.celery_agents.driving import Engine

Make = Callable[[Registry, str], Tool[..., Any]]


def by_closure(registry: Registry, tenant: str) -> Tool[..., Any]:
    @tool(registry=registry)
    def charge(amount: int) -> str:
        return f"{tenant} pays {amount}"

    return charge


def by_default(registry: Registry, tenant: str) -> Tool[..., Any]:
    @tool(registry=registry)
    def charge(amount: int, tenant: str = tenant) -> str:
        return f"{tenant} pays {amount}"

    return charge


def by_keyword(registry: Registry, tenant: str) -> Tool[..., Any]:
    @tool(registry=registry)
    def charge(amount: int, *, tenant: str = tenant) -> str:
        return f"{tenant} pays {amount}"

    return charge


def capturing_nothing(registry: Registry, tenant: str) -> Tool[..., Any]:
    @tool(registry=registry)
    def charge(amount: int, currency: str = "EUR") -> str:
        return f"{currency} {amount}"

    return charge


@pytest.fixture
def registry() -> Registry:
    return Registry()


def charging(registry: Registry, *tools: Any) -> Any:
    def decide(context: Any) -> Any:
        done = context.results
        return Complete(output=done[-1].output) if done else UseTool(tool="charge", arguments={"amount": 3})

    return loop_agent(name="charging", tools=tools, input=None, output=str, registry=registry)(decide)


@pytest.mark.parametrize("make", [by_closure, by_default, by_keyword])
def test_each_call_runs_the_tool_that_it_was_given(engine: Engine, make: Make) -> None:
    one, other = (make(engine.registry, tenant) for tenant in ("ada", "bob"))

    def work(run: Run, input: None) -> list[str]:
        return [run.tool(one, 1), run.tool(other, 2)]

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["ada pays 1", "bob pays 2"]


@pytest.mark.parametrize("make", [by_closure, by_default, by_keyword])
def test_by_its_name_a_tool_that_was_made_anew_is_not_found(registry: Registry, make: Make) -> None:
    made = make(registry, "ada")
    assert registry.find_tool("charge") is made
    make(registry, "bob")
    with pytest.raises(RegistrationError, match=rf"{make.__name__}.*made several times.*give the tool"):
        registry.find_tool("charge")


def test_a_loop_agent_is_given_the_tool_itself(registry: Registry) -> None:
    made = by_closure(registry, "ada")
    by_closure(registry, "bob")
    assert LocalAgents(registry=registry).start(charging(Registry(), made)).wait() == "ada pays 3"
    execution = LocalAgents(registry=registry).start(charging(registry, "charge")).run()
    error = execution.summary().error
    assert error is not None
    assert "made several times" in error.message


def test_tools_that_cannot_differ_are_found(registry: Registry) -> None:
    capturing_nothing(registry, "ada")
    latest = capturing_nothing(registry, "bob")
    assert registry.find_tool("charge") is latest


def test_a_module_may_be_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Also one that makes its tools in a function, and one whose functions are decorated."""
    (tmp_path / "some_tools.py").write_text(
        "import functools\n"
        "from celery_agents import Registry, tool\n"
        "if 'registry' not in globals(): registry = Registry()\n"
        "def make(tenant):\n"
        "    @tool(registry=registry)\n"
        "    def charge(amount: int) -> str: return tenant\n"
        "make('ada')\n"
        "@tool(registry=registry)\n"
        "@functools.lru_cache\n"
        "def cached(amount: int, rate: list = []) -> int: return amount\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(lambda: sys.modules.pop("some_tools", None))
    module = importlib.import_module("some_tools")
    for name in ("charge", "cached"):
        first = module.registry.find_tool(name)
        importlib.reload(module)
        assert module.registry.find_tool(name) not in (None, first)
