"""`agents stats`."""

import pytest

from tests.celery_agents.cli.cli_driving import CLI, refused


def _fill(cli: CLI) -> str:
    cli.execute(cli.enqueue("count", "3"))
    failed = cli.enqueue("boom", "7")
    cli.execute(failed)
    cli.execute(cli.enqueue("refund", "1"))
    return failed


@pytest.mark.parametrize("columns", ["80", "140"])
def test_stats_shows_states_steps_failures_and_waits(cli: CLI, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    failed = _fill(cli)
    shown = cli("stats")
    assert shown.exit_code == 0, shown.output
    for expected in ("count", "completed", "tick", "Failures", "ValueError", failed, "Waiting for people", "refund"):
        assert expected in shown.stdout
    assert "\x1b" not in shown.stdout


def test_stats_as_json(cli: CLI) -> None:
    failed = _fill(cli)
    numbers = cli.json("stats", "--since", "1h")
    agents = {agent["agent_id"]: agent for agent in numbers["agents"]}
    assert agents["count"]["states"] == {"completed": 1}
    assert agents["count"]["steps"] == 3
    assert agents["boom"]["durations"]["count"] == 1
    steps = {(step["agent_id"], step["name"]): step for step in numbers["steps"]}
    assert steps["count", "tick"]["durations"]["count"] == 3
    assert steps["count", "tick"]["durations"]["p95"] >= 0
    (failure,) = numbers["failures"]
    assert (failure["error_type"], failure["message"], failure["execution_id"]) == (
        "builtins:ValueError",
        "bad 7",
        failed,
    )
    (wait,) = numbers["waits"]
    assert (wait["state"], wait["waiting"], wait["durations"]["count"]) == ("waiting_for_input", 1, 0)


def test_stats_of_one_agent_and_of_a_span_of_time(cli: CLI) -> None:
    _fill(cli)
    assert [agent["agent_id"] for agent in cli.json("stats", "--agent", "boom")["agents"]] == ["boom"]
    nothing = cli("stats", "--since", "2090-01-01T00:00Z")
    assert nothing.exit_code == 0
    assert nothing.stdout == ""
    assert "No execution was created" in nothing.stderr
    refused(cli("stats", "--since", "yesterday"), "no moment", code=2)
