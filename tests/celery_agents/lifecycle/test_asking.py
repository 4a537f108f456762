"""Whatever somebody asks for, and through whichever door: the trail says who, why and through what, and alike."""

import json
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from agent_statestore import AuditEntry, AuditEvent, MemoryStore
from celery_agents import Agent, Registry, Run, agent, enqueue, tool
from celery_agents.cli.group import _COMMANDS
from celery_agents.client.execution import Execution
from celery_agents.host.runtime import Runtime
from celery_agents.http import Executions
from celery_agents.http.messages import Request
from celery_agents.http.openapi import TABLE
from celery_agents.lifecycle import delete
from celery_agents.lifecycle.decider import Decider, process_user
from celery_agents.replay import fork, rewind
from tests.celery_agents.cli.cli_driving import CLI

# Asks for something; returns the id of the execution whose trail tells of it.
Ask: TypeAlias = Callable[[Execution], str | None]

WHO, WHY = "Ada", "as agreed"
TOLD: dict[str, Any] = {"sender": WHO, "reason": WHY}
NOTED = {AuditEvent.DECIDED, AuditEvent.RECEIVED, AuditEvent.DELETED}


def _agents(registry: Registry) -> dict[str, Agent]:
    @tool(registry=registry, requires_approval=True)
    def pay(to: str) -> None:
        """Sends money."""

    @agent(registry=registry)
    def asks(run: Run, input: None) -> Any:
        return run.ask("?")

    @agent(registry=registry)
    def pays(run: Run, input: None) -> None:
        run.tool(pay, "Zoë")

    @agent(registry=registry)
    def waits(run: Run, input: None) -> Any:
        return run.wait_for("paid")

    @agent(registry=registry)
    def breaks(run: Run, input: None) -> None:
        raise ValueError

    @agent(registry=registry)
    def ends(run: Run, input: None) -> None:
        return None

    return {made.name: made for made in (asks, pays, waits, breaks, ends)}


def _python(execution: Execution) -> dict[str, tuple[str, Ask]]:
    """By name: the agent, and the call."""
    services = execution._services
    return {
        "resume": ("asks", lambda one: one.resume(1, **TOLD)),
        "approve": ("pays", lambda one: one.approve(**TOLD)),
        "reject": ("pays", lambda one: one.reject(**TOLD)),
        "send_event": ("waits", lambda one: one.send_event("paid", 1, sender=WHO)),
        "say": ("asks", lambda one: one.say("use the EU index", sender=WHO)),
        "cancel": ("asks", lambda one: one.cancel(**TOLD) and None),
        "cancel now": ("asks", lambda one: one.cancel(now=True, **TOLD) and None),
        "delete": ("ends", lambda one: one.delete(**TOLD) and None),
        "fork": ("asks", lambda one: fork(one.id, 0, runtime=services, **TOLD).id),
        "rewind": ("asks", lambda one: rewind(one.id, 0, runtime=services, **TOLD) and None),
        "rewind to": ("asks", lambda one: rewind(one.id, 0, runtime=services, **TOLD).id),
    }


def _command_line(runtime: Runtime) -> dict[str, tuple[str, Ask]]:
    cli = CLI(runtime.app)

    def called(name: str, *arguments: str, reason: bool = True, digest: bool = False, made: bool = False) -> Ask:
        def call(one: Execution) -> str | None:
            said = ["--sender", WHO, *(("--reason", WHY) if reason else ())]
            if digest:
                assert one.approval is not None
                said += ["--digest", one.approval.prompt["digest"]]
            result = cli(name, one.id, *arguments, *said)
            assert result.exit_code == 0, result.output
            return result.stdout.strip() if made else None

        return call

    return {
        "resume": ("asks", called("resume", "1")),
        "approve": ("pays", called("approve", digest=True)),
        "reject": ("pays", called("reject", digest=True)),
        "send-event": ("waits", called("send-event", "paid", "1", reason=False)),
        "say": ("asks", called("say", "use the EU index", reason=False)),
        "cancel": ("asks", called("cancel")),
        "cancel --now": ("asks", called("cancel", "--now")),
        "recover": ("breaks", called("recover")),
        "delete": ("ends", called("delete")),
        "fork": ("asks", called("fork", "--at-step", "0", made=True)),
        "rewind": ("asks", called("rewind", "--to-step", "0")),
        "rewind to": ("asks", called("rewind", "--to-step", "0", made=True)),
    }


def _http(runtime: Runtime) -> dict[str, tuple[str, Ask]]:
    executions = Executions(runtime=runtime, permit=lambda *_: True)

    def posted(path: str, body: Callable[[Execution], dict[str, Any]] = lambda _: {}, *, reason: bool = True) -> Ask:
        def post(one: Execution) -> str | None:
            content = json.dumps(body(one) | ({"reason": WHY} if reason else {})).encode()
            where = f"/executions/{one.id}/{path}"
            request = Request(method="POST", path=where, content_type="application/json", body=content)
            reply = executions.handle(request, WHO)
            assert reply.status in (200, 201), reply
            made: str | None = reply.value["execution_id"] if reply.status == 201 else None
            return made

        return post

    def digest(one: Execution) -> dict[str, Any]:
        assert one.approval is not None
        return {"digest": one.approval.prompt["digest"]}

    def several(_: Execution) -> dict[str, Any]:
        return {"decisions": [{"do": "answer", "answer": 1, "reason": WHY}]}

    return {
        "answer": ("asks", posted("answer", lambda _: {"answer": 1})),
        "approve": ("pays", posted("approve", digest)),
        "reject": ("pays", posted("reject", digest)),
        "events": ("waits", posted("events/paid", lambda _: {"payload": 1}, reason=False)),
        "say": ("asks", posted("say", lambda _: {"text": "use the EU index"}, reason=False)),
        "cancel": ("asks", posted("cancel")),
        "cancel now": ("asks", posted("cancel", lambda _: {"now": True})),
        "decisions": ("asks", posted("decisions", several, reason=False)),
        "fork": ("asks", posted("fork", lambda _: {"at_step": 0})),
        "rewind": ("asks", posted("rewind", lambda _: {"to_step": 0})),
    }


def _told_of(runtime: Runtime, execution_id: str) -> AuditEntry:
    """The entry of the trail that tells of what was asked for."""
    trail = runtime.store.get_audit(execution_id)
    asked = [entry for entry in trail if entry.event in NOTED or entry.by is not None]
    assert asked, [entry.event for entry in trail]
    return asked[0]


def test_every_door_records_who_why_and_through_what(runtime: Runtime) -> None:
    agents = _agents(runtime.registry)
    wrong = []
    doors = {"python": _python(Execution("", runtime)), "command line": _command_line(runtime), "http": _http(runtime)}
    for channel, asks in doors.items():
        for name, (agent_id, ask) in asks.items():
            one = enqueue(agents[agent_id], None, runtime=runtime)
            runtime.executor.execute(one.id, "host/1/0")
            entry = _told_of(runtime, ask(one) or one.id)
            told = (entry.by, entry.channel, entry.os_user)
            why = WHY in (entry.reason or "") or entry.event is AuditEvent.RECEIVED
            if told != (WHO, channel, process_user()) or not why:
                wrong.append((channel, name, told, entry.reason))
    assert wrong == []
    # Those that only look, make an execution, or leave nothing of it that could tell.
    others = "enqueue list show audit watch diff stats archive purge erase session copy migrate settings check webhooks"
    assert {*_COMMANDS} == {*others.split()} | {name for name in doors["command line"] if " " not in name}
    told = {route.path.split("/")[3] for route in TABLE.routes if route.method == "POST" and route.path.count("/") > 2}
    assert told == {name for name in doors["http"] if " " not in name}


def test_a_cancel_at_once_ends_as_it_was_asked_for(runtime: Runtime) -> None:
    agents = _agents(runtime.registry)
    one = enqueue(agents["asks"], None, runtime=runtime)
    Execution(one.id, runtime, "http").cancel(now=True, **TOLD)
    *_, end = runtime.store.get_audit(one.id)
    assert (end.to_state, end.by, end.reason, end.channel) == ("cancelled", WHO, WHY, "http")


def test_where_no_trail_is_left_the_log_tells_who_removed_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agents = _agents(runtime.registry)
    by = Decider(sender=WHO, reason=WHY, channel="http")

    def ended() -> Execution:
        one = enqueue(agents["ends"], None, runtime=runtime)
        runtime.executor.execute(one.id, "host/1/0")
        runtime.store.settle(one.id)
        return one

    def said(asked: Callable[[], object]) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            asked()
        return [record.getMessage() for record in caplog.records if record.name.startswith("celery_agents")]

    who = f"by {WHO} (http, {process_user()}): {WHY}"
    kept, gone = ended(), ended()
    assert said(lambda: delete.delete(runtime, kept.id, by=by)) == []  # its trail tells
    for asked, what in (
        (lambda: delete.purge(runtime, kept.id, by=by), kept.id),
        (lambda: delete.purge(runtime, gone.id, by=by), gone.id),
    ):
        (line,) = said(asked)
        assert line == f"execution {what} was removed from {runtime.store.url} for good, {who}"
    assert said(lambda: delete.purge(runtime, gone.id, by=by)) == []  # it was not there any more

    for _ in range(2):
        ended()
    cli, old = CLI(runtime.app), ("purge", "--older-than", "0s", "--state", "completed", "--yes", "--sender", WHO)
    (line,) = said(lambda: cli(*old))
    assert line.startswith("2 executions, completed before ")
    assert line.endswith(f"by {WHO} (command line, {process_user()})")

    store = MemoryStore()
    store.keeps_deleted = False
    monkeypatch.setattr(runtime, "_store", store)
    monkeypatch.setattr(runtime, "_executor", None)
    removed = ended()
    (line,) = said(lambda: Execution(removed.id, runtime).delete(**TOLD))
    assert line.endswith(f" was removed from memory:// for good, by {WHO} (python, {process_user()}): {WHY}")
