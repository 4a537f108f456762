import queue
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore.records import ExecutionSummary
from celery_agents import Agent, Retry, Run, agent, current_stream, tool
from celery_agents.host.runtime import Runtime
from tests.celery_agents.http.serving import serve_asgi


class Worker:
    """Executes what a bell is rung for, one after the other."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._bells: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work)

    def ring(self, *summaries: ExecutionSummary) -> None:
        for summary in summaries:
            self._bells.put(summary.execution_id)

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_go_on.set()
        self._bells.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (execution_id := self._bells.get()) is not None:
            self.runtime.executor.execute(execution_id, "host/1/0")


@pytest.fixture
def worker(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    with Worker(runtime) as worker:
        monkeypatch.setattr(runtime, "ring", worker.ring)
        monkeypatch.setattr(runtime, "ring_first", lambda summaries: worker.ring(*summaries))
        yield worker


@pytest.fixture
def port(runtime: Runtime) -> Iterator[int]:
    yield from serve_asgi(runtime)


@pytest.fixture
def writer(runtime: Runtime, worker: Worker) -> Agent:
    """An agent in whose stream there is something of every kind."""

    @tool(registry=runtime.registry)
    def look_up(word: str) -> dict[str, Any]:
        """Looks a word up."""
        return {"word": word, "found": 2}

    @tool(registry=runtime.registry, requires_approval=True)
    def pay(to: str, amount: int) -> str:
        """Sends money."""
        return f"paid {amount} to {to}"

    def decide() -> str:
        live = current_stream()
        for delta in ("I shall ", "look it up."):
            live.thinking(delta)
        for delta in ("Let me ", "see. "):
            live.text(delta)
        live.tool_call("call-1", "look_up", delta='{"word":')
        live.tool_call("call-1", "look_up", delta=' "moon"}')
        live.tool_call("call-2", "pay", arguments={"to": "Zoë", "amount": 30})
        return "decided"

    def answer(colour: str, tries: list[int]) -> str:
        tries.append(1)
        live = current_stream()
        live.thinking(f"Try {len(tries)}. ")
        live.text("The moon is ")
        if len(tries) == 1:
            live.tool_call("call-9", "look_up", arguments={"word": "sun"})
            worker.may_go_on.wait()
            raise TimeoutError("the model is away")
        live.text(f"{colour}.")
        return f"The moon is {colour}."

    def writer(run: Run, text: str) -> str:
        run.step("model", decide)
        run.tool(look_up, "moon")
        run.emit({"progress": 50})
        paid = run.tool(pay, "Zoë", 30)
        colour = run.ask("Which colour?", schema=str)
        retrying = run.options(retry=Retry(retries=1, first_delay=timedelta(milliseconds=1)))
        said = retrying.step("answer", answer, f"{colour} ({paid}, {text})", [])
        run.emit({"type": "data-weather", "id": "w", "data": {"sky": "clear"}})
        run.emit({"type": "STATE_SNAPSHOT", "snapshot": {"page": 2}})
        return said

    return agent(registry=runtime.registry)(writer)
