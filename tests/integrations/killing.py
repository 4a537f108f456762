"""An agent of a framework on real workers, which are killed: what was recorded is never asked of the model again.

Each framework brings a module with its agent `boss`, which asks the models "boss" and "helper" behind `MODEL_URL` and
has the tools `add` and `delegate`; `note` writes what a tool does. What is checked is alike for all.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from celery import Celery

from celery_agents.celery import make_app
from celery_agents.client.execution import Execution
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Reply, Says
from tests.services.commands import Command, environment, wait_until
from tests.services.machine import scaled

# Turns of the model "boss" in which it has two sums made; in one more it delegates, and in the last it answers.
TURNS: Final = 8
DELEGATES: Final = 3
SUM: Final = sum(2 * turn + 1 for turn in range(TURNS) if turn != DELEGATES)
TOOL_SECONDS: Final = 0.03


def boss(conversation: Conversation) -> Reply:
    """A model that works for `TURNS` turns with two calls each, and then gives its structured answer."""
    turn = conversation.turn
    if turn == DELEGATES:
        return Calls(Call("delegate", {"task": "count"}))
    if turn < TURNS:
        return Calls(Call("add", {"a": turn, "b": 0}), Call("add", {"a": turn, "b": 1}))
    answer = {"total": SUM, "helper": "counted"}
    # A structured answer is the call of a tool for some frameworks, and a text for others.
    return Calls(Call("final_result", answer)) if "final_result" in conversation.tools else Says(json.dumps(answer))


def helper(conversation: Conversation) -> Reply:
    """The model of the agent that the first one delegates to."""
    turn = conversation.turn
    return Calls(Call("add", {"a": 100 + turn, "b": 0})) if turn < 3 else Says("counted")


# The steps of one execution: requests and calls of the boss, and those of its helper.
STEPS: Final = (TURNS + 1) + 2 * (TURNS - 1) + 4 + 3


def note(what: str) -> None:
    """What a tool does to the world: a line in the ledger, written before it takes its time."""
    with open(os.environ["LEDGER"], "a") as ledger:  # noqa: PTH123 - one write of one line
        ledger.write(f"{what}\n")
    time.sleep(TOOL_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where workers run: which pool, and the URLs of store and broker; None for the embedded ones."""

    folder: Path
    module: str
    server: ModelServer
    pool: str = "prefork"
    store_url: str | None = None
    broker_url: str | None = None
    without_recording: bool = False
    delegate: str = "inline"

    @property
    def settings(self) -> dict[str, str]:
        """The environment of its processes."""
        urls = {"AGENTS_STORE_URL": self.store_url, "AGENTS_BROKER_URL": self.broker_url}
        return {
            "AGENTS_HOME": str(self.folder / "home"),
            "AGENTS_IMPORTS": self.module,
            "AGENTS_LEASE_SECONDS": "4",
            "AGENTS_WATCH_SECONDS": "0.2",
            "AGENTS_SWEEP_SECONDS": "0.5",
            "MODEL_URL": self.server.url,
            "LEDGER": str(self.ledger),
            "DELEGATE": self.delegate,
            **({"WITHOUT_RECORDING": "1"} if self.without_recording else {}),
            **{name: url for name, url in urls.items() if url is not None},
        }

    @property
    def ledger(self) -> Path:
        """What the tools have done."""
        return self.folder / "ledger"

    @property
    def calls(self) -> list[str]:
        """The lines of the ledger."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def last_words(self) -> str:
        """The end of the workers' log."""
        lines = (self.folder / "worker.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-60:])

    def start_worker(self) -> Command:
        """A worker of its own, ready."""
        return Command(
            f"celery -A celery_agents worker -l INFO --without-mingle --without-gossip -P {self.pool} -c 2",
            cwd=self.folder,
            env=environment(**self.settings),
            log=self.folder / "worker.log",
            warm=True,
        ).wait_for("ready.")

    @contextmanager
    def client(self) -> Iterator[Runtime]:
        """A client of its store and broker, without the framework."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.settings.items():
                if name != "AGENTS_IMPORTS":
                    patch.setenv(name, value)
            app: Celery = make_app()
            runtime = runtime_of(app)
        try:
            yield runtime
        finally:
            runtime.store.close()
            app.close()


def start(client: Runtime, prompt: str, agent: str = "boss") -> Execution:
    """Starts an execution of an agent that this process has no code of."""
    context = client.store.create_context(agent, prompt)
    client.ring(context)
    return Execution(context.execution_id, client)


def recorded_answers(execution: Execution) -> set[str]:
    """The answers of models that are recorded: their ids, which are digests of what was asked."""
    found: set[str] = set()
    for step in execution.steps():
        if step.result is not None:
            text = json.dumps(step.result.output)
            found |= {text[at + 7 : at + 23] for at in _places(text, "answer-")}
    return found


def _places(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def check_killed(place: Place, *, kills: int = 1, dice: random.Random | None = None) -> Counter[str]:
    """Executes once, with so many deaths at random moments; returns how often each call of a tool was made.

    Raises `AssertionError` if a recorded answer was asked for again, if more calls were repeated than were in flight,
    or if the output is another one.
    """
    dice = dice or random.Random()
    server, prompt = place.server, f"Count. {dice.random()}"
    with place.client() as client:
        execution = start(client, prompt)
        worker = place.start_worker()
        deaths: list[tuple[set[str], int]] = []
        try:
            for _ in range(kills):
                done = len(place.calls)
                wanted = done + dice.randrange(1, 2 * TURNS // kills)
                wait_until("some calls are made", lambda: len(place.calls) >= wanted or execution.state.is_over)  # noqa: B023
                time.sleep(dice.uniform(0, TOOL_SECONDS * 2))
                worker.kill()
                deaths.append((recorded_answers(execution), len(server.requests)))
                worker = place.start_worker()
            output = execution.wait(scaled(60))
        except BaseException as error:
            error.add_note(f"{execution.summary()}\n{place.last_words()}")
            raise
        finally:
            worker.kill()
        for recorded, asked in deaths:
            again = {request.digest[:16] for request in server.requests[asked:]} & recorded
            assert not again, f"answers that were recorded were asked for again: {again}"
        check_output(output)
        counted = Counter(place.calls)
        # Of two calls beside each other and one request, all may have been in flight at each death.
        assert sum(counted.values()) - len(counted) <= 2 * kills, counted
        steps = execution.steps()
    repeated = [request for request in server.repeated() if prompt in str(request.conversation.turns)]
    assert len(repeated) <= kills, [request.conversation.turn for request in repeated]
    assert len(steps) >= STEPS
    return counted


def check_output(output: Any) -> None:
    """Raises `AssertionError` unless it is the structured answer."""
    found = output if isinstance(output, dict) else json.loads(output)
    assert (found["total"], found["helper"]) == (SUM, "counted")
