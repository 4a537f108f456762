"""Workers that run an agent of Pydantic AI are killed with SIGKILL: what was recorded is never paid for again."""

import os
from pathlib import Path

import pytest

from celery_agents.engine.journal.spending import spent_in
from tests.integrations.deaths import Deaths, Serve
from tests.integrations.deaths_amid_texts import check_killed_amid_a_text, speaker
from tests.integrations.killing import Place, boss, check_output, helper, recorded_answers, start
from tests.services.commands import wait_until
from tests.services.machine import scaled

pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("framework-workers")]


class TestPydanticAI(Deaths):
    framework = "Pydantic AI"
    module = "tests.integrations.pydantic_ai.killed"


def test_they_would_be_without_the_recording(serve: Serve, tmp_path: Path) -> None:
    """On every commit, for one of the frameworks."""
    TestPydanticAI().test_they_would_be_without_the_recording(serve, tmp_path)


def test_who_follows_a_text_ends_with_what_is_recorded(serve: Serve, tmp_path: Path) -> None:
    """On every commit, for one of the frameworks."""
    check_killed_amid_a_text(TestPydanticAI.module, tmp_path, serve(speaker=speaker))


@pytest.mark.full
def test_a_group_goes_on_where_it_was_killed(serve: Serve, tmp_path: Path) -> None:
    server = serve(boss=boss, helper=helper)
    place = Place(
        folder=tmp_path, module=TestPydanticAI.module, server=server, delegate=os.environ.get("DELEGATE", "group")
    )
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
