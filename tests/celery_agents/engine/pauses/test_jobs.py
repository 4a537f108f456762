"""`run.wait_job`: jobs that another service works on, looked at on a durable timer or woken by an event."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState, WaitKind
from celery_agents import (
    AsyncRun,
    DeadlineExceeded,
    Finished,
    JobTimeout,
    NestedStep,
    Registry,
    Retry,
    Run,
    StepInterrupted,
    agent,
    tool,
)
from celery_agents.errors import InvalidResult, RegistrationError
from celery_agents.testing import LocalAgents, When
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import wait_until

MINUTE = timedelta(minutes=1)


class Service:
    """Another service: takes jobs, and finishes one when the test says so."""

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.looks = 0
        self.results: dict[str, Any] = {}
        self.faults: list[BaseException] = []

    def submit(self, what: str) -> str:
        self.submitted.append(what)
        return f"job-{len(self.submitted)}"

    def poll(self, job: str) -> Finished | None:
        self.looks += 1
        if self.faults:
            raise self.faults.pop(0)
        return Finished(self.results[job]) if job in self.results else None


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def agents() -> LocalAgents:
    return LocalAgents(registry=Registry())


def rendering(service: Service, **options: Any) -> Any:
    def render(run: Run, what: str) -> Any:
        return run.wait_job("render", service.submit, what, poll=service.poll, every=MINUTE, **options)

    return agent(registry=Registry())(render)


def test_a_job_is_submitted_once_and_looked_at_until_it_has_finished(agents: LocalAgents, service: Service) -> None:
    execution = agents.start(rendering(service), "film").run()
    assert (execution.state, service.looks) == (AgentState.WAITING, 1)
    assert [wait.kind for wait in execution.summary().waits] == [WaitKind.TIMER]
    agents.advance(3 * MINUTE)
    assert (execution.state, service.looks) == (AgentState.WAITING, 4)
    service.results["job-1"] = {"seconds": 90}
    agents.advance(MINUTE)
    assert execution.wait() == {"seconds": 90}
    assert (service.submitted, service.looks) == (["film"], 5)
    assert [step.name for step in execution.steps()] == ["render", "job render"]


def test_a_job_that_has_finished_at_once_pauses_nothing(agents: LocalAgents, service: Service) -> None:
    service.results["job-1"] = 7
    execution = agents.start(rendering(service), "film").run()
    assert execution.wait() == 7
    assert execution.summary().attempt == 1


def test_an_event_has_it_looked_at_at_once(agents: LocalAgents, service: Service) -> None:
    execution = agents.start(rendering(service, event="rendered"), "film").run()
    assert [(wait.kind, wait.key) for wait in execution.summary().waits] == [(WaitKind.EVENT, "rendered")]
    execution.send_event("rendered")  # too early: the service knows nothing of it yet
    agents.run()
    assert (execution.state, service.looks) == (AgentState.WAITING, 2)
    service.results["job-1"] = "done"
    for _ in range(3):  # a webhook may be delivered several times
        execution.send_event("rendered")
    agents.run()
    assert execution.wait() == "done"
    assert service.looks == 3


def test_without_the_event_the_timer_still_finds_it(agents: LocalAgents, service: Service) -> None:
    execution = agents.start(rendering(service, event="rendered"), "film").run()
    service.results["job-1"] = "done"
    agents.advance(MINUTE)
    assert execution.wait() == "done"


def test_what_wakes_the_execution_otherwise_is_no_reason_to_look(agents: LocalAgents, service: Service) -> None:
    execution = agents.start(rendering(service), "film").run()
    agents.runtime.ring(execution.summary())
    agents.run()
    execution.send_event("of something else")
    agents.run()
    assert service.looks == 1
    agents.advance(MINUTE)
    assert service.looks == 2


def test_a_job_that_takes_too_long_is_an_error_that_stays(agents: LocalAgents, service: Service) -> None:
    execution = agents.start(rendering(service, timeout=150 * MINUTE / 60), "film").run()
    agents.advance(3 * MINUTE)
    assert execution.state is AgentState.FAILED
    assert service.looks == 4  # at 0, 1, 2 and, for the last time, 2.5 minutes
    error = execution.summary().error
    assert error is not None
    assert error.type == "celery_agents.errors:JobTimeout"
    assert error.message == "job 'render' did not finish within 150 s"


def test_an_agent_may_go_on_after_a_timeout(agents: LocalAgents, service: Service) -> None:
    def patient(run: Run, what: str) -> str:
        try:
            run.wait_job("render", service.submit, what, poll=service.poll, every=MINUTE, timeout=MINUTE)
        except JobTimeout as error:
            return f"gave up on {error.job}"
        return "never"

    execution = agents.start(agent(registry=Registry())(patient), "film").run()
    agents.advance(MINUTE)
    assert execution.wait() == "gave up on render"


def test_the_deadline_of_the_execution_counts_while_a_job_goes_on(agents: LocalAgents, service: Service) -> None:
    execution = agents.start(rendering(service), "film", deadline=90 * MINUTE / 60).run()
    agents.advance(2 * MINUTE)
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith(DeadlineExceeded.__name__)
    assert service.looks == 2


def test_a_look_that_fails_fails_the_wait_unless_retries_allow_it(agents: LocalAgents, service: Service) -> None:
    service.faults = [ConnectionError("away")]
    execution = agents.start(rendering(service), "film").run()
    error = execution.summary().error
    assert error is not None
    assert error.message == "away"
    assert [step.name for step in execution.steps()] == ["render", "job render"]


def test_so_many_looks_in_a_row_may_fail(agents: LocalAgents, service: Service) -> None:
    def render(run: Run, what: str) -> Any:
        tolerant = run.options(retry=Retry(retries=2, retry_on=(ConnectionError,)))
        return tolerant.wait_job("render", service.submit, what, poll=service.poll, every=MINUTE)

    made = agent(registry=Registry())(render)
    service.faults = [ConnectionError("away"), ConnectionError("away")]
    execution = agents.start(made, "film").run()
    agents.advance(2 * MINUTE)
    assert (execution.state, service.looks) == (AgentState.WAITING, 3)  # the third one answered
    service.faults = [ConnectionError("away")] * 3
    agents.advance(3 * MINUTE)
    assert execution.state is AgentState.FAILED
    assert service.looks == 6


def test_the_output_is_of_the_type_that_is_asked_for(agents: LocalAgents, service: Service) -> None:
    class Film(pydantic.BaseModel):
        seconds: int

    seen: list[Any] = []

    def render(run: Run, what: str) -> None:
        typed = run.options(returns=Film)
        seen.append(typed.wait_job("render", service.submit, what, poll=service.poll, every=MINUTE))
        run.sleep(timedelta(hours=1))

    service.results |= {"job-1": {"seconds": 90}, "job-2": {"seconds": "many"}}
    made = agent(registry=Registry())(render)
    agents.start(made, "film").run()
    agents.advance(timedelta(hours=1))
    assert seen == [Film(seconds=90), Film(seconds=90)]  # also from the journal
    error = agents.start(made, "film").run().summary().error
    assert error is not None
    assert error.type.endswith(InvalidResult.__name__)


def test_an_output_without_a_json_form_fails_the_wait(agents: LocalAgents, service: Service) -> None:
    service.results["job-1"] = object()
    execution = agents.start(rendering(service), "film").run()
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith(InvalidResult.__name__)
    assert [step.name for step in execution.steps()] == ["render", "job render"]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"every": timedelta(0)}, RegistrationError, "every needs a positive duration"),
        ({"every": 30}, RegistrationError, "every needs a positive duration"),
        ({"timeout": timedelta(-1)}, RegistrationError, "timeout needs a positive duration"),
        ({"poll": "look"}, TypeError, "poll needs a function"),
        ({"poll": str}, TypeError, r"poll returns Finished\(output\), or None"),
    ],
)
def test_what_is_wrong_is_said_so(
    agents: LocalAgents, service: Service, wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    def render(run: Run, what: str) -> Any:
        return run.wait_job("render", service.submit, what, **{"poll": service.poll} | wrong)

    execution = agents.start(agent(registry=Registry())(render), "film").run()
    found = execution.summary().error
    assert found is not None
    assert found.type.endswith(error.__name__)
    assert re.search(said, found.message)


def test_a_look_can_take_no_step_and_change_no_memory(agents: LocalAgents) -> None:
    def nosy(run: Run, input: None) -> Any:
        def look(job: int) -> Finished | None:
            run.memory["looked"] = True
            if input is None and "seen" not in run.memory:
                run.step("inside", lambda: 1)
            return Finished()

        return run.wait_job("render", lambda: 1, poll=look)

    execution = agents.start(agent(registry=Registry())(nosy)).run()
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith(NestedStep.__name__)
    assert "looked" not in execution.context().memory.working_memory


def test_a_crash_in_a_look_repeats_the_look_and_not_the_submission(agents: LocalAgents, service: Service) -> None:
    planned = agents.crash_at("job render", When.AFTER_INTENT)
    execution = agents.start(rendering(service), "film")
    agents.run()
    assert planned.happened
    service.results["job-1"] = 1
    agents.run()
    assert execution.wait() == 1
    assert service.submitted == ["film"]


def test_the_crash_policy_of_the_tool_that_submits_counts(agents: LocalAgents, service: Service) -> None:
    registry = Registry()
    submit = tool(registry=registry, name="submit", on_crash="fail")(service.submit)

    def render(run: Run, what: str) -> Any:
        return run.wait_job("render", submit, what=what, poll=service.poll, every=MINUTE)

    agents.crash_at("render", When.AFTER_INTENT)
    execution = agents.start(agent(registry=registry)(render), "film")
    agents.run()
    agents.run()
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith(StepInterrupted.__name__)
    assert service.submitted == []


def test_an_async_agent_waits_for_several_jobs_at_once(agents: LocalAgents, service: Service) -> None:
    async def poll(job: str) -> Finished | None:
        await asyncio.sleep(0)
        return service.poll(job)

    async def render(run: AsyncRun, what: list[str]) -> list[Any]:
        return await asyncio.gather(
            *(run.wait_job(f"render {one}", service.submit, one, poll=poll, every=MINUTE) for one in what)
        )

    execution = agents.start(agent(registry=Registry())(render), ["a", "b"]).run()
    assert sorted(service.submitted) == ["a", "b"]
    service.results |= {"job-1": 1, "job-2": 2}
    agents.advance(5 * MINUTE)
    by_name = {"a": service.submitted.index("a") + 1, "b": service.submitted.index("b") + 1}
    assert execution.wait() == [by_name["a"], by_name["b"]]
    assert sorted(service.submitted) == ["a", "b"]


def test_a_test_may_stand_in_for_the_look(agents: LocalAgents, service: Service) -> None:
    agents.replace("job render", lambda job: Finished(f"{job}, of the test"))
    execution = agents.start(rendering(service), "film").run()
    assert execution.wait() == "job-1, of the test"
    assert service.looks == 0


AGENTS = """
from datetime import timedelta
from pathlib import Path
from celery_agents import Finished, agent

def submit(what):
    with Path("submitted").open("a") as ledger:
        print(what, file=ledger)
    return what

def poll(job):
    with Path("looked").open("a") as ledger:
        print(job, file=ledger)
    return Finished(job.upper()) if Path("finished").exists() else None

@agent
def render(run, what: str) -> str:
    return run.wait_job("render", submit, what, poll=poll, every=timedelta(seconds=1))

@agent
def render_told(run, what: str) -> str:
    return run.wait_job("render", submit, what, poll=poll, every=timedelta(hours=1), event="rendered")
"""


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.crash
def test_real_workers_that_are_killed_submit_a_job_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        with worker(tmp_path, "-P prefork -c 1") as first:
            execution = start(client, "render", "film")
            told = start(client, "render_told", "song")
            wait_until("both wait", lambda: len(lines(tmp_path / "looked")) > 3 and told.state is AgentState.WAITING)
            first.kill()
        (tmp_path / "finished").touch()
        with worker(tmp_path, "-P threads -c 2", log="second.log"):
            assert execution.wait(60) == "FILM"
            assert told.state is AgentState.WAITING  # its timer is an hour away
            told.send_event("rendered")
            assert told.wait(60) == "SONG"
    assert sorted(lines(tmp_path / "submitted")) == ["film", "song"]
