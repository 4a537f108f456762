"""The demo from its first line to its last: a case, a kill, a question, an approval, and what it has cost."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from agent_statestore import AgentState, AgentStep, ExecutionSummary, Wait, WaitKind
from celery_agents import Execution
from celery_agents.demo.display import Display, relative
from celery_agents.demo.proof import Check
from celery_agents.demo.workers import WorkerProcess
from celery_agents.testing.llm import ModelServer
from examples.support_desk.desk import support_desk
from examples.support_desk.models import SCRIPTED, URL, script
from examples.support_desk.orders import Orders

_CASE: Final = "My espresso machine from order 1007 arrived broken. I am not amused."
_CUSTOMER: Final = "Yes, please pay me back."
_AGREED: Final = 80.0
# Of an answer of the scripted model: slow enough to be followed, and to be killed in between.
_ANSWER_SECONDS: Final = 0.7
_KILLED_AFTER: Final = 3
_PATIENCE_SECONDS: Final = 120.0


def tell(home: Path) -> int:
    """Run the demo with all its files in `home`; return the exit code."""
    display = Display()
    orders = Orders(home / "orders.db")
    orders.create()
    with ExitStack() as stack:
        server = None
        if not (os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("OPENAI_API_KEY")):
            server = stack.enter_context(ModelServer({SCRIPTED: script}, delay_seconds=_ANSWER_SECONDS))
            os.environ[URL] = server.openai_url
        display.text(
            "\nThe agent (examples/support_desk/desk.py) is an ordinary agent of Pydantic AI: four tools, one of them\n"
            "behind an MCP server, one that asks the customer, and one that only pays if somebody agrees.\n"
        )
        display.text(
            "Its model is a real one, as there is a key in the environment.\n"
            if server is None
            else "Its model follows a script, behind a local server that speaks OpenAI's protocol. With an\n"
            "ANTHROPIC_API_KEY or OPENAI_API_KEY in the environment it is a real one.\n"
        )
        display.text(f"All files of this demo: {relative(home)}\n")

        def start(name: str) -> WorkerProcess:
            worker = stack.enter_context(WorkerProcess(name, home))
            display.event(f"{name} starts: {worker.SHOWN}")
            return worker.start()

        return _Story(display, orders, server, start).tell()


class _Story:
    def __init__(
        self, display: Display, orders: Orders, server: ModelServer | None, start: Callable[[str], WorkerProcess]
    ) -> None:
        self._display = display
        self._orders = orders
        self._server = server
        self._start = start
        self._shown = 0

    def tell(self) -> int:
        execution = support_desk.enqueue(_CASE)
        self._display.event(f'a customer writes: "{_CASE}"')
        first = self._start("worker 1")
        self._follow(execution, first, self._is_in_the_middle)
        first.kill()
        asked = len(self._server.requests) if self._server else 0
        recorded = sum(1 for step in execution.steps() if step.action.kind == "model")
        self._display.event("SIGKILL to worker 1 and its pool, while the model thinks", "bold red")
        second = self._start("worker 2")
        while not (now := self._follow(execution, second, lambda now: bool(now.waits))).state.is_over:
            for waiting in now.waits:
                self._answer(execution, waiting)
            self._follow(execution, second, _changed_since(now))
        return self._conclude(execution, asked, recorded)

    def _is_in_the_middle(self, now: ExecutionSummary) -> bool:
        is_asked_again = self._server is None or len(self._server.requests) > 1
        return now.step_count >= _KILLED_AFTER and is_asked_again

    def _follow(
        self, execution: Execution, worker: WorkerProcess, until: Callable[[ExecutionSummary], bool]
    ) -> ExecutionSummary:
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            now = execution.summary()
            if now.step_count > self._shown:
                for step in execution.steps()[self._shown :]:
                    self._show(step)
                self._shown = now.step_count
            if until(now) or now.state.is_over:
                return now
            if worker.exit_code is not None or time.monotonic() > give_up_at:
                raise SystemExit(f"the worker does not go on:\n{worker.log_tail()}")
            self._display.keep_company("the worker imports its agent, or the model thinks")
            time.sleep(0.05)

    def _show(self, step: AgentStep) -> None:
        if step.result is None:
            return
        what = step.action.title or step.name
        if step.action.kind == "tool" and step.action.input is not None:
            given = ", ".join(f"{name}={value!r}" for name, value in step.action.input.items())
            what = f"{step.action.tool}({given})"
        self._display.event(f"  step {step.step_number:2}  {step.action.kind:8}  {what}")

    def _answer(self, execution: Execution, waiting: Wait) -> None:
        if waiting.kind is WaitKind.INPUT:
            self._display.event(f"the customer is asked: {waiting.prompt['question']}", "bold yellow")
            self._display.event(f"agents resume {execution.id} '\"{_CUSTOMER}\"'", "dim")
            execution.resume(_CUSTOMER, key=waiting.key, sender="customer")
        elif waiting.kind is WaitKind.APPROVAL:
            arguments = dict(waiting.prompt["arguments"])
            agreed = arguments | {"amount": min(arguments["amount"], _AGREED)}
            self._display.event(f"somebody has to agree to {waiting.prompt['tool']}({arguments})", "bold yellow")
            self._display.event(f"Ada agrees, to {agreed['amount']} euros; no worker's slot was held meanwhile")
            execution.approve(key=waiting.key, sender="ada", reason="repair is cheaper", arguments=agreed)

    def _conclude(self, execution: Execution, asked: int, recorded: int) -> int:
        summary = execution.summary()
        if summary.state is not AgentState.COMPLETED:
            self._display.event(f"the execution {summary.state.value}: {summary.error}", "bold red")
            return 1
        output = execution.wait()
        self._display.event(f"done: {output['summary']}", "bold green")
        requests = [step for step in execution.steps() if step.action.kind == "model"]
        spent = execution.spent()
        refunds = self._orders.refunds()
        checks = [
            Check(
                claim="the worker was killed in the middle",
                holds=0 < recorded < len(requests),
                evidence=f"{recorded} of {len(requests)} answers of the model were recorded by then",
            ),
            Check(
                claim="money was paid back once, as was agreed",
                holds=len(refunds) == 1 and refunds[0][1] <= _AGREED,
                evidence=f"{refunds}",
            ),
            Check(
                claim="what was used up is known",
                holds=spent["tokens"] > 0,
                evidence=f"{spent['tokens']:.0f} tokens, {spent['cost']:.4f} dollars",
            ),
        ]
        if self._server is not None:
            repeated = self._server.repeated()
            checks.insert(
                1,
                Check(
                    claim="no recorded answer was asked for again",
                    holds=len(self._server.requests) - len(repeated) == len(requests) and len(repeated) <= 1,
                    evidence=f"{len(self._server.requests)} requests for {len(requests)} answers, {len(repeated)} of "
                    f"them in flight at the kill ({asked} sent by then)",
                ),
            )
        self._display.text()
        self._display.checks(checks)
        self._display.text(f"\nLook into it:  agents show {execution.id}\n")
        return 0 if all(check.holds for check in checks) else 1


def _changed_since(then: ExecutionSummary) -> Callable[[ExecutionSummary], bool]:
    return lambda now: now.version > then.version
