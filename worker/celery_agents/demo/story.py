"""The demo from its first line to its last."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from agent_statestore import AgentState, AgentStep, ExecutionSummary, StoreError
from celery_agents import AgentsError, Execution
from celery_agents.demo.display import Display, relative
from celery_agents.demo.environment_audit.agent import AuditRequest, environment_audit
from celery_agents.demo.environment_audit.ledger import calls
from celery_agents.demo.proof import Ran, prove
from celery_agents.demo.workers import WorkerProcess

_POLL_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 90.0
_ANSWER_SECONDS: Final = 20
# Besides one step per distribution: the list, the dependents, the question, the report.
_OTHER_STEPS: Final = 4
# Slow enough to follow, and to be killed in the middle on a machine that has much else to do.
_SECONDS_PER_AUDIT: Final = 0.04


class DemoFailed(Exception):
    """The demo could not go on."""


def tell(home: Path, answer: str | None) -> int:
    """Run the demo with all its files in `home`; return the exit code. `answer` answers the agent's question."""
    display = Display()
    workers: list[WorkerProcess] = []
    with ExitStack() as stack:

        def start(name: str) -> WorkerProcess:
            worker = stack.enter_context(WorkerProcess(name, home))
            workers.append(worker)
            return worker.start()

        try:
            return Story(home, display, start, answer).tell()
        except (DemoFailed, AgentsError, StoreError) as error:
            _show_log(display, workers)
            display.event(f"The demo failed: {error}", "bold red")
            return 1
        except Exception:
            _show_log(display, workers)
            raise


def _show_log(display: Display, workers: list[WorkerProcess]) -> None:
    for worker in workers[-1:]:
        display.text(f"\nThe end of {relative(worker.log)}:\n{worker.log_tail()}\n")


@dataclass
class Story:
    """The scenes, in order, and what each hands on to the next."""

    home: Path
    display: Display
    start_worker: Callable[[str], WorkerProcess]
    answer: str | None
    total: int | None = field(default=None, init=False)

    def tell(self) -> int:
        """Play all scenes; return the exit code."""
        self._introduce()
        execution = environment_audit.enqueue(self._request("killed", seconds_per_audit=_SECONDS_PER_AUDIT))
        self.display.event(f"execution {execution.id} is enqueued")
        first = self.start_worker("worker 1")
        self.display.event(f"worker 1 starts: {first.SHOWN}")
        killed_at, recorded_at_kill = self._kill_in_the_middle(execution, first)
        second = self._go_on(execution, killed_at, recorded_at_kill)
        answer = self._answer_question(execution)
        self._finish(execution, second)
        undisturbed = self._run_undisturbed(second, answer)
        return self._conclude(execution, undisturbed, recorded_at_kill, first.exit_code)

    def _introduce(self) -> None:
        self.display.text(
            "\nThe agent (celery_agents.demo.environment_audit) audits the Python environment\n"
            "that it runs in, one durable step per installed distribution. It needs no key,\n"
            "no network and no server: SQLite keeps the steps, a folder is the broker.\n\n"
            f"All files of this demo: {relative(self.home)}\n"
        )

    def _request(self, name: str, *, seconds_per_audit: float = 0) -> AuditRequest:
        return AuditRequest(report=self._report(name), ledger=self._ledger(name), seconds_per_audit=seconds_per_audit)

    def _report(self, name: str) -> Path:
        return self.home / f"report-{name}.md"

    def _ledger(self, name: str) -> Path:
        return self.home / f"calls-{name}.txt"

    def _kill_in_the_middle(self, execution: Execution, worker: WorkerProcess) -> tuple[datetime, int]:
        """Return the time of the kill, and how many steps are recorded once the worker is dead."""
        self._follow(execution, worker, until=lambda now: self.total is not None and now.step_count >= self.total // 3)
        killed_at = worker.kill()
        recorded = execution.summary().step_count
        self.display.event("SIGKILL to worker 1 and its pool: no goodbye, no clean-up", "bold red")
        self.display.event(f"{recorded} of {self.total} steps are in the store")
        return killed_at, recorded

    def _go_on(self, execution: Execution, killed_at: datetime, recorded: int) -> WorkerProcess:
        worker = self.start_worker("worker 2")
        self.display.event("worker 2 starts")

        def look(step: AgentStep) -> None:
            if step.step_number == recorded + 1:
                seconds = (step.timestamp + step.duration - killed_at).total_seconds()
                self.display.event(
                    f"went on at step {step.step_number} ({step.name}), {seconds:.1f} s after the kill", "bold green"
                )

        self._follow(
            execution, worker, after=recorded, on_step=look, until=lambda now: now.state is AgentState.WAITING_FOR_INPUT
        )
        return worker

    def _answer_question(self, execution: Execution) -> str:
        """Answer for whoever is there; return the answer."""
        question = execution.question
        if question is None:
            raise DemoFailed("the agent asked nothing")
        self.display.event("the agent asks a person, and holds no worker slot while it waits")
        answer, sender = self.answer, "the command line"
        if answer is None and self.display.can_ask:
            answer, sender = self.display.ask(str(question.prompt), _ANSWER_SECONDS), "you"
        else:
            self.display.prompt(str(question.prompt))
        if answer is None:
            answer, sender = "yes", "the demo, as nobody was there"
        execution.resume(answer, sender=sender)
        self.display.event(f'answered "{answer}" by {sender}')
        return answer

    def _finish(self, execution: Execution, worker: WorkerProcess) -> None:
        self._wait(execution, worker, lambda now: now.state.is_over)
        execution.wait(0)
        self.display.event(f"the execution is {execution.state}")

    def _run_undisturbed(self, worker: WorkerProcess, answer: str) -> Execution:
        """Audit once more with nobody killed, to compare with."""
        self.display.event("the same audit once more, undisturbed, to compare with")
        execution = environment_audit.enqueue(self._request("undisturbed"))
        self._follow(execution, worker, until=lambda now: now.state is AgentState.WAITING_FOR_INPUT)
        execution.resume(answer, sender="the demo")
        self._finish(execution, worker)
        return execution

    def _conclude(
        self, execution: Execution, undisturbed: Execution, recorded_at_kill: int, exit_code: int | None
    ) -> int:
        checks = prove(
            self._ran("killed", execution),
            self._ran("undisturbed", undisturbed),
            recorded_at_kill=recorded_at_kill,
            exit_code=exit_code,
        )
        proved = all(check.holds for check in checks)
        self.display.title("\nWhat this proved" if proved else "\nWhat this was to prove")
        self.display.checks(checks)
        self.display.text()
        report = self._report("killed")
        if report.exists():
            self.display.text(f"The report: {relative(report)}")
        verdict = "Everything held" if proved else "NOT everything held"
        self.display.text(f"{verdict}, after {self.display.elapsed:.1f} s.")
        return 0 if proved else 1

    def _ran(self, name: str, execution: Execution) -> Ran:
        return Ran(context=execution.context(), calls=calls(self._ledger(name)), report=self._report(name))

    def _follow(
        self,
        execution: Execution,
        worker: WorkerProcess,
        *,
        until: Callable[[ExecutionSummary], bool],
        after: int = 0,
        on_step: Callable[[AgentStep], None] | None = None,
    ) -> None:
        """Show the steps above `after` as they are recorded, until something holds."""
        seen = after
        with self.display.progress("recorded", self.total, done=after) as shown:

            def look(now: ExecutionSummary) -> bool:
                nonlocal seen
                for step in execution.steps(after=seen) if now.step_count > seen else ():
                    seen = step.step_number
                    if step.step_number == 1 and step.result is not None:
                        self.total = len(step.result.output["names"]) + _OTHER_STEPS
                    if on_step is not None:
                        on_step(step)
                    shown.show(seen, step.name, self.total)
                return until(now)

            self._wait(execution, worker, look)

    def _wait(self, execution: Execution, worker: WorkerProcess, holds: Callable[[ExecutionSummary], bool]) -> None:
        """Wait until something holds. Raise `DemoFailed` once that is impossible, or nothing happens any more."""
        version, give_up_at = -1, 0.0
        while not holds(now := execution.summary()):
            if now.version != version:
                version, give_up_at = now.version, time.monotonic() + _PATIENCE_SECONDS
            if now.state.is_over:
                execution.wait(0)  # raises if it failed
                raise DemoFailed("the execution was over too soon")
            if worker.exit_code is not None:
                raise DemoFailed(f"{worker.name} ended by itself with exit code {worker.exit_code}")
            if time.monotonic() > give_up_at:
                raise DemoFailed(f"nothing more happened for {_PATIENCE_SECONDS:.0f} s in state {now.state}")
            self.display.keep_company(f"waiting for {worker.name}; a busy machine takes longer to start one")
            time.sleep(_POLL_SECONDS)
