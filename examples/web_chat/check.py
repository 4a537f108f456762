"""The traveller's part, played over HTTP, and what has to hold in the end: `python -m examples.web_chat --check`."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import httpx

from agent_statestore.streams import StreamEvent, StreamKind
from celery_agents.client.transcript import Discarded, Transcript
from celery_agents.demo.display import Display
from celery_agents.demo.proof import Check
from examples.web_chat.stays import booked

_PATIENCE_SECONDS: Final = 120.0
_WISH: Final = "I need a holiday."
_STEERED: Final = "Something cheaper, with breakfast."
# So much of the long answer is said when the worker is killed.
_KILLED_AT: Final = 150


def play(url: str, kill_worker: Callable[[], int]) -> int:
    """Write, answer, steer, kill the worker, change the booking, approve it; return 0 if all holds, else 1."""
    display = Display()
    with httpx.Client(base_url=url, timeout=_PATIENCE_SECONDS) as ada, httpx.Client(base_url=url) as ben:
        for client, name in ((ada, "ada"), (ben, "ben")):
            client.post("sign-in", json={"user": name}).raise_for_status()
        display.event(f'Ada writes: "{_WISH}"')
        started = _post(ada, "api/executions", {"agent": "travel-desk", "input": _WISH, "session_id": "check"})
        execution = f"api/executions/{started['execution_id']}"
        traveller = _Traveller(ada, execution, display, kill_worker)
        for event in _events(ada, execution):
            traveller.take(event)
        foreign = [ben.get(f"{execution}{part}").status_code for part in ("", "/events", "/steps", "/contents")]
        steps = ada.get(f"{execution}/steps").raise_for_status().json()["items"]
    recorded = "".join(step["result"]["output"]["content"] or "" for step in steps if step["name"].startswith("model"))
    bookings = booked()
    checks = [
        Check(
            claim="the answers came in pieces",
            holds=traveller.pieces > 2 * len(steps),
            evidence=f"{traveller.pieces} pieces of text for {len(steps)} steps",
        ),
        Check(
            claim="the worker was killed in the middle of one",
            holds=traveller.is_recovered and traveller.discarded >= _KILLED_AT,
            evidence=f"{traveller.discarded} characters were void, and said anew by another worker",
        ),
        Check(
            claim="what was read is what is recorded",
            holds=traveller.transcript.text == recorded and bool(recorded),
            evidence=f"{len(recorded)} characters",
        ),
        Check(
            claim="what was said meanwhile was heard, and the booking made once, as it was changed",
            holds=bookings == [("Pensão Aurora", 4, 2, True)],
            evidence=f"{bookings}",
        ),
        Check(
            claim="nobody else sees it",
            holds=set(foreign) == {HTTPStatus.NOT_FOUND},
            evidence=f"Ben gets {sorted(set(foreign))}",
        ),
    ]
    display.text()
    display.checks(checks)
    return 0 if all(check.holds for check in checks) else 1


class _Traveller:
    def __init__(self, client: httpx.Client, execution: str, display: Display, kill_worker: Callable[[], int]) -> None:
        self._client = client
        self._execution = execution
        self._display = display
        self._kill_worker = kill_worker
        self._is_killed = False
        self.transcript = Transcript()
        self.pieces = 0
        self.discarded = 0
        self.is_recovered = False

    def take(self, event: StreamEvent) -> None:
        """Look at an event, and do what a traveller would do."""
        for change in self.transcript.feed(event):
            if isinstance(change, Discarded):
                self.discarded += sum(len(part.text) for part in change.parts)
        match event.kind:
            case StreamKind.TEXT:
                self.pieces += 1
                if not self._is_killed and len(self._said_by(event.step)) > _KILLED_AT:
                    self._is_killed = True
                    self._steer()
                    self._display.event(
                        f"SIGKILL to worker {self._kill_worker()}, in the middle of an answer", "bold red"
                    )
            case StreamKind.RECOVERED:
                self.is_recovered = True
                self._display.event(f"attempt {event.attempt} goes on")
            case StreamKind.STEP_RECORDED:
                self._display.event(f"  step {event.data['number']:2}  {event.step}")
            case StreamKind.ASKED:
                self._decide(event.data)
            case StreamKind.ENDED:
                self._display.event(f"{event.data['state']}: {event.data.get('output')}", "bold green")

    def _said_by(self, step: str) -> str:
        return "".join(part.text for part in self.transcript.of_step(step))

    def _steer(self) -> None:
        self._display.event(f'Ada says meanwhile: "{_STEERED}"')
        _post(self._client, f"{self._execution}/say", {"text": _STEERED})

    def _decide(self, asked: Any) -> None:
        address = {"key": asked["key"]}
        if asked["wait"] == "input":
            self._display.event(f"Ada is asked: {asked['prompt']}", "bold yellow")
            _post(self._client, f"{self._execution}/answer", {"answer": "Lisbon", "round": asked["round"], **address})
        else:
            arguments = {**asked["arguments"], "nights": 4}
            self._display.event(
                f"{asked['tool']} waits for approval; Ada makes it {arguments['nights']} nights", "bold yellow"
            )
            decision = {"digest": asked["digest"], "arguments": arguments, **address}
            _post(self._client, f"{self._execution}/approve", decision)


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    reply = client.post(path, json=body)
    if reply.is_error:
        raise SystemExit(f"{path}: {reply.status_code} {reply.text}")
    return reply.json()


def _events(client: httpx.Client, execution: str) -> Iterator[StreamEvent]:
    """Yield the events of an execution, live, until it is over."""
    with client.stream("GET", f"{execution}/events") as reply:
        reply.raise_for_status()
        for line in reply.iter_lines():
            if line.startswith("data: "):
                told = json.loads(line.removeprefix("data: "))
                yield StreamEvent(**{**told, "at": datetime.fromisoformat(told["at"])})
