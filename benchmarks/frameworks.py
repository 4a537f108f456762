"""What durability adds to a request of a framework's agent, against the same agent without it. Needs `frameworks`."""

import time
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from agent_statestore import NewExecution, Store, open_store
from agent_statestore.codec import encode_step
from benchmarks.executing import LEASE, OWNER
from benchmarks.measuring import Turn, take_turns
from benchmarks.model_server import model_server
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Defaults, Executor
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.engine.outcome import Ending
from celery_agents.engine.run import event_loop
from celery_agents.integrations.pydantic_ai import CeleryDurability, durable
from celery_agents.lifecycle.assembly import make_executor

_ANSWER_SECONDS: Final = 0.02
# Each call of the tool adds two messages to the history.
_CALLS: Final = (5, 25)
_STORES: Final = ("Redis", "PostgreSQL", "SQLite FULL")
_ROUNDS: Final = 5


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure the seconds of each request of an agent of Pydantic AI, plain and durable."""
    rounds = max(2, min(sizes.rounds, _ROUNDS))
    with ExitStack() as stack:
        url = stack.enter_context(model_server(_ANSWER_SECONDS))
        plain = _agent(stack, url)
        turns: dict[str, Turn] = {f"plain, {calls}": partial(_plain, plain, calls) for calls in _CALLS}
        durables: dict[str, _Durable] = {}
        for name in _STORES:
            store = stack.enter_context(open_store(servers.store_url(name)))
            durables[name] = _Durable(store, _agent(stack, url, CeleryDurability()))
            turns |= {f"{name}, {calls}": partial(durables[name].run, calls) for calls in _CALLS}
        measured = take_turns(turns, rounds)
    rows: list[dict[str, Value]] = []
    for name in ("plain", *durables):
        row: dict[str, Value] = {"agent": name if name == "plain" else f"durable, {name}"}
        for calls in _CALLS:
            row[f"{2 * calls} messages: a request, ms"] = measured.median(f"{name}, {calls}") * 1e3
            row[f"{2 * calls} messages / plain"] = measured.ratio(f"{name}, {calls}", f"plain, {calls}")
        first, last = durables[name].recorded_bytes() if name in durables else (None, None)
        row |= {"bytes of the first request": first, "bytes of the last": last}
        rows.append(row)
    return [
        Table(
            name="frameworks",
            title="A request of an agent of Pydantic AI, with its call of a tool",
            note=(
                f"A model that answers in {_ANSWER_SECONDS * 1e3:.0f} ms, over HTTP, asked again and again until the "
                f"history has {2 * _CALLS[0]} or {2 * _CALLS[1]} messages; the whole run divided by its requests. "
                "Durable: each request and each call of a tool is a step; claim and end are included."
            ),
            rows=rows,
        )
    ]


def _agent(stack: ExitStack, url: str, *capabilities: Any) -> Agent[None, str]:
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    stack.callback(lambda: event_loop.start(client.close()).result())
    model = OpenAIChatModel("model", provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, name="notes", capabilities=capabilities)

    @agent.tool_plain
    def note(number: int) -> str:
        """Note a number."""
        return f"noted {number}"

    return agent


def _plain(agent: Agent[None, str], calls: int) -> list[float]:
    started = time.perf_counter()
    event_loop.start(agent.run(str(calls))).result()
    return [(time.perf_counter() - started) / (calls + 1)]


class _Durable:
    def __init__(self, store: Store, agent: Agent[None, str]) -> None:
        self._store = store
        registry = Registry()
        durable(agent, registry=registry)
        self._executor: Executor = make_executor(
            store=store, registry=registry, keeper=LeaseKeeper(store), limits=Defaults(lease=LEASE)
        )
        self._last = ""

    def run(self, calls: int) -> list[float]:
        self._last = self._store.create(NewExecution(agent_id="notes", input=str(calls))).execution_id
        started = time.perf_counter()
        outcome = self._executor.execute(self._last, OWNER)
        seconds = time.perf_counter() - started
        if outcome is None or outcome.ending is not Ending.COMPLETED:
            raise RuntimeError(f"the execution did not go as planned: {outcome}")
        return [seconds / (calls + 1)]

    def recorded_bytes(self) -> tuple[int, int]:
        """Return how many bytes the first and the last request but one of the last execution have recorded."""
        context = self._store.get_context(self._last)
        assert context is not None
        sizes = [len(encode_step(step, 1 << 20).text) for step in context.steps if step.action.kind == "model"]
        return sizes[0], sizes[-2]
