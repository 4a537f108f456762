"""Workers that run an agent of Pydantic AI are killed with SIGKILL: what was recorded is never paid for again."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from celery_agents.engine.journal.spending import spent_in
from celery_agents.testing.llm import ModelServer
from tests.integrations.chaos import run_deaths
from tests.integrations.killing import Place, boss, check_killed, check_output, helper, recorded_answers, start
from tests.services.commands import wait_until
from tests.services.machine import scaled

Serve = Callable[..., ModelServer]
MODULE = "tests.integrations.pydantic_ai.killed"
pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("pydantic-ai-workers")]


def test_recorded_requests_are_not_made_again(serve: Serve, tmp_path: Path) -> None:
    place = Place(folder=tmp_path, module=MODULE, server=serve(boss=boss, helper=helper))
    check_killed(place)


def test_they_would_be_without_the_recording(serve: Serve, tmp_path: Path) -> None:
    server = serve(boss=boss, helper=helper)
    place = Place(folder=tmp_path, module=MODULE, server=server, pool="threads", without_recording=True)
    with pytest.raises(AssertionError):
        check_killed(place)
    assert server.repeated()


def test_a_group_goes_on_where_it_was_killed(serve: Serve, tmp_path: Path) -> None:
    server = serve(boss=boss, helper=helper)
    place = Place(folder=tmp_path, module=MODULE, server=server, delegate=os.environ.get("DELEGATE", "group"))
    with place.client() as client:
        execution = start(client, "Count.")
        worker = place.start_worker()
        try:
            wait_until("the helper is half-way", lambda: "add 101 0" in place.calls)
            worker.kill()
            recorded, asked = recorded_answers(execution), len(server.requests)
            worker = place.start_worker()
            check_output(execution.wait(scaled(60)))
        finally:
            worker.kill()
        assert not {request.digest[:16] for request in server.requests[asked:]} & recorded
        helped = [step for step in execution.steps() if step.within]
        context = execution.context()
    (group,) = {step.within for step in helped}
    names = [step.name.removeprefix(f"{group[0]}#/").partition(" call_")[0] for step in helped]
    models = [f"helper model{number}" for number in ("", "#2", "#3", "#4")]
    assert names == [models[0], "add", models[1], "add", models[2], "add", models[3]]
    assert context.steps[helped[-1].step_number].name == group[0], "recorded when all are"
    for step in context.steps:
        used = step.result.output["usage"] if step.result and step.action.kind == "model" else {}
        assert step.spent.get("tokens", 0) == sum(used.get(name, 0) for name in ("input_tokens", "output_tokens"))
    assert spent_in(context)["tokens"] == sum(step.spent.get("tokens", 0) for step in context.steps) > 0


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_fifty_deaths(
    tmp_path: Path, redis_url: str, postgresql_migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
    figures = run_deaths(MODULE, tmp_path, {"redis": redis_url, "postgresql": postgresql_migrated_url}, seed)
    with capsys.disabled():
        print(f"\nPydantic AI, seed {seed}: {figures}")
