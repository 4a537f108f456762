"""Webhooks against a real receiver: what is told, when, how often, and what is not."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState
from celery_agents import Run, tool
from celery_agents.settings import Settings
from celery_agents.webhooks import Deliveries, DeliveryStatus
from celery_agents.webhooks.deliverer import SCHEDULE, Deliverer
from celery_agents.webhooks.links import Links
from tests.celery_agents.driving import Crash
from tests.celery_agents.webhooks.conftest import Telling
from tests.celery_agents.webhooks.receiving import Receiver

ASKED, APPROVAL, ENDED, REMINDER = (
    f"execution.{name}" for name in ("asked", "approval_requested", "ended", "reminder")
)


def asking(run: Run, _: None) -> str:
    return run.ask("Which colour?", schema=str, name="colour")


def start(telling: Telling, function: Any = asking, **options: Any) -> str:
    return telling.start(telling.agent(function, **options))


def test_a_question_and_an_end_are_told_once(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(outputs=True))
    execution_id = start(telling)
    telling.execute(execution_id)
    assert telling.deliver() == 1
    (asked,) = receiver.got
    assert asked.payload["type"] == ASKED
    (waiting,) = telling.context(execution_id).waits
    assert asked.payload["timestamp"] == waiting.asked_at.isoformat()
    assert asked.data["execution_id"] == execution_id
    assert asked.data["state"] == "waiting_for_input"
    assert asked.data["question"] == {
        "key": "colour",
        "round": 1,
        "refused": None,
        "prompt": "Which colour?",
        "schema": {"type": "string"},
    }
    telling.answer(execution_id, "red", "colour")
    assert telling.finish(execution_id) == "red"
    telling.ends.tell_of(execution_id)  # settled
    assert [telling.deliver(), telling.deliver(after=timedelta(days=3))] == [1, 0]
    assert receiver.types() == [ASKED, ENDED]
    end = receiver.got[1].data
    assert (end["state"], end["output"], end["error"]) == ("completed", "red", None)
    assert {one.status for one in telling.kept()} == {DeliveryStatus.DELIVERED}


def test_an_approval_is_told_with_what_decides_it(telling: Telling, receiver: Receiver) -> None:
    @tool(registry=telling.registry, requires_approval=True)
    def pay(amount: int) -> str:
        """Sends money."""
        return f"paid {amount}"

    telling.tell(receiver.settings())
    execution_id = start(telling, lambda run, _: run.tool(pay, 30))
    telling.execute(execution_id)
    telling.deliver()
    (told,) = receiver.got
    assert told.type == APPROVAL
    approval = told.data["approval"]
    assert (approval["tool"], approval["arguments"]) == ("pay", {"amount": 30})
    assert approval["digest"] == telling.store.get_summary(execution_id).waits[0].prompt["digest"]  # type: ignore[union-attr]


def test_questions_come_with_links_to_answer_where_that_is_wanted(telling: Telling, receiver: Receiver) -> None:
    hook = receiver.settings(links_as="chat")
    settings = Settings(webhooks=(hook,), link_secrets=("k" * 40,), link_url="https://example.com")
    links = Links(settings)
    telling.tell(hook, links=links)
    telling.execute(start(telling, lambda run, _: run.ask("Which?", choices=["red", "green"])))
    telling.deliver()
    told = receiver.got[0].data["links"]
    assert [one["answer"] for one in told["choices"]] == ["red", "green"]
    read = links.read(told["choices"][1]["url"].rpartition("/")[2])
    assert (read.sender, read.key, read.answers) == ("chat", "ask", ("green",))
    assert links.read(told["answer"].rpartition("/")[2]).answers == ()
    with pytest.raises(ValueError, match="links_as needs agents_link_secrets and agents_link_url"):
        Settings(webhooks=(hook,))


def test_only_what_a_receiver_hears_is_noted(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(agents=["others"]), receiver.settings(name="ends", events=["execution.ended"]))
    execution_id = start(telling)
    telling.execute(execution_id)
    assert telling.kept() == []
    telling.answer(execution_id, "red", "colour")
    telling.finish(execution_id)
    assert [(one.receiver, one.event) for one in telling.kept()] == [("ends", ENDED)]


def test_what_fails_is_tried_again_until_it_is_dead_and_can_be_repeated(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(timeout_seconds=0.3))
    receiver.script = [500, "hang", 302, 503]
    receiver.headers = {"Location": receiver.url("/elsewhere")}
    execution_id = start(telling)
    telling.execute(execution_id)
    assert telling.deliver() == 1
    for wait in SCHEDULE:
        assert telling.deliver(after=wait - timedelta(milliseconds=1)) == 0
        assert telling.deliver(after=timedelta(milliseconds=1)) == 1
    assert telling.deliver(after=timedelta(days=2)) == 0
    assert len(receiver.got) == 1 + len(SCHEDULE)
    assert len({one.id for one in receiver.got}) == 1
    assert {one.path for one in receiver.got} == {"/hook"}  # no redirect was followed
    (dead,) = telling.kept()
    assert (dead.status, dead.tries, dead.last) == (DeliveryStatus.DEAD, 12, "answered 503")
    receiver.script = [200]
    assert Deliveries(telling.store.documents).retry(dead, telling.store.now())
    assert telling.deliver() == 1
    assert telling.kept()[0].status is DeliveryStatus.DELIVERED
    assert receiver.got[-1].id == receiver.got[0].id


@pytest.mark.parametrize(
    ("answer", "headers", "expected", "said"),
    [
        (410, {}, None, "answered 410: it wants no more of this"),
        (429, {"Retry-After": "3600"}, timedelta(hours=1), "answered 429"),
        ("hang", {}, SCHEDULE[0], "did not answer within 0.2 s"),
        (302, {"Location": "http://169.254.169.254/"}, SCHEDULE[0], "answered 302, and redirects are not followed"),
    ],
)
def test_the_answer_says_what_is_next(
    telling: Telling,
    receiver: Receiver,
    answer: int | str,
    headers: dict[str, str],
    expected: timedelta | None,
    said: str,
) -> None:
    telling.tell(receiver.settings(timeout_seconds=0.2))
    receiver.script, receiver.headers = [answer], headers
    telling.execute(start(telling))
    telling.deliver()
    (kept,) = telling.kept()
    assert kept.last == said
    if expected is None:
        assert kept.status is DeliveryStatus.DEAD
    else:
        assert kept.due_at - telling.store.now() == expected


def test_a_receiver_that_is_not_there_says_nothing_of_its_path(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(url="http://127.0.0.1:1/T0/secret-path"))
    telling.execute(start(telling))
    telling.deliver()
    (kept,) = telling.kept()
    assert kept.last is not None
    assert "ConnectError" in kept.last
    assert "secret" not in kept.last


def test_no_log_has_the_path_of_a_receiver(
    telling: Telling, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    telling.tell(receiver.settings(url=receiver.url("/T0/secret-path?a=b c".replace(" ", "%20"))))
    receiver.script = [500]
    telling.execute(start(telling))
    telling.deliver()
    assert receiver.got
    assert f"127.0.0.1:{receiver.port}" in caplog.text
    assert "secret-path" not in caplog.text


def test_one_that_hangs_holds_up_no_other(telling: Telling, receiver: Receiver) -> None:
    hangs, quick = receiver.settings(name="hangs", timeout_seconds=5), receiver.settings(name="quick")
    telling.tell(hangs, quick)
    receiver.script = ["hang", 200]
    telling.execute(start(telling))
    assert telling.deliverer is not None
    done = []

    async def both() -> None:
        assert telling.deliverer is not None
        run = asyncio.create_task(telling.deliverer.run(lambda: bool(done), lambda: True, 0.01))
        async with asyncio.timeout(10):
            while DeliveryStatus.DELIVERED not in [one.status for one in telling.kept()]:
                await asyncio.sleep(0.01)
        done.append(True)
        await run

    asyncio.run(both())
    assert {one.status for one in telling.kept()} == {DeliveryStatus.DELIVERED, DeliveryStatus.PENDING}


def test_a_question_that_is_answered_is_told_no_more(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(remind_after_seconds=[3600]))
    receiver.script = [500, 200]
    execution_id = start(telling)
    telling.execute(execution_id)
    telling.deliver()
    telling.answer(execution_id, "red", "colour")  # no worker has come to it yet
    telling.deliver(after=timedelta(hours=2))
    assert receiver.types() == [ASKED]
    assert telling.kept() == []


def test_reminders_go_up_the_chain_until_somebody_answers(telling: Telling, receiver: Receiver) -> None:
    hour = timedelta(hours=1)
    telling.tell(
        receiver.settings(events=["execution.asked"], remind_after_seconds=[3600, 7200]),
        receiver.settings(name="boss", url=receiver.url("/boss"), events=[], remind_after_seconds=[10800, 14400]),
    )
    execution_id = start(telling)
    telling.execute(execution_id)
    telling.deliver()
    for _ in range(3):
        telling.deliver(after=hour)
    assert [(one.type, one.path, one.data.get("reminder")) for one in receiver.got] == [
        (ASKED, "/hook", None),
        (REMINDER, "/hook", 1),
        (REMINDER, "/hook", 2),
        (REMINDER, "/boss", 1),
    ]
    telling.answer(execution_id, "red", "colour")
    assert telling.finish(execution_id) == "red"
    telling.deliver(after=2 * hour)
    assert len(receiver.got) == 4
    assert len({one.id for one in receiver.got}) == 4


def test_a_crash_before_the_pause_tells_once_and_in_time(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(remind_after_seconds=[60]))
    execution_id = start(telling)
    note, crashes = telling.before_pause, [True]
    assert note is not None

    def dies_after(*noted: Any) -> None:
        note(*noted)
        if crashes and crashes.pop():
            raise Crash

    telling.before_pause = dies_after
    telling.crash(execution_id)
    assert telling.deliver() == 1  # it is looked at, and nothing waits yet
    assert receiver.got == []
    telling.execute(execution_id)
    telling.deliver(after=timedelta(seconds=2))
    telling.deliver(after=timedelta(seconds=60))
    assert receiver.types() == [ASKED, REMINDER]
    assert telling.deliver(after=timedelta(days=1)) == 0


def test_a_question_that_stays_open_beside_another_is_told_once(telling: Telling, receiver: Receiver) -> None:
    async def several(run: Any, _: None) -> list[str]:
        return list(await asyncio.gather(*(run.ask(f"{name}?", schema=str, name=name) for name in ("one", "two"))))

    telling.tell(receiver.settings())
    execution_id = start(telling, several)
    telling.execute(execution_id)
    telling.deliver()
    telling.answer(execution_id, "1", "one")
    telling.execute(execution_id)
    telling.deliver(after=timedelta(minutes=1))
    assert sorted(one.data["question"]["key"] for one in receiver.got) == ["one", "two"]


def test_every_end_is_told_whoever_made_it(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(events=["execution.ended"]))

    def fails(run: Run, _: None) -> None:
        raise LookupError("no such page")

    failed, paused = start(telling, fails), start(telling)
    telling.finish(failed)
    telling.execute(paused)
    telling.cancel(paused)
    telling.ends.finish_cancel(paused)  # and here the process dies: a sweeper tells of it
    summary = telling.store.get_summary(paused)
    assert summary is not None
    assert summary.due_at is not None
    telling.ends.tell(summary)
    telling.ends.tell(summary)
    telling.deliver()
    told = {one.data["execution_id"]: one.data for one in receiver.got}
    assert len(receiver.got) == 2
    assert told[failed]["state"] == "failed"
    assert told[failed]["error"] == {"type": "builtins:LookupError", "message": "no such page"}
    assert told[paused]["state"] == "cancelled"

    deleted = start(telling, name="third")
    summary = telling.store.get_summary(deleted)
    assert summary is not None
    telling.store.delete_context(deleted)
    telling.ends.tell_of_deletion(summary)
    telling.deliver()
    assert receiver.got[-1].data["state"] == "deleted"


def test_a_dead_letter_that_is_released_ends_twice(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings(events=["execution.ended"]))
    broken = [True]

    def flaky(run: Run, _: None) -> int:
        if broken:
            raise LookupError("not yet")
        return 7

    execution_id = start(telling, flaky)
    telling.finish(execution_id)
    telling.deliver()
    broken.clear()
    telling.clock.advance(timedelta(seconds=1))
    telling.store.update_state(execution_id, AgentState.IDLE)
    assert telling.finish(execution_id) == 7
    telling.deliver()
    assert [one.data["state"] for one in receiver.got] == ["failed", "completed"]
    assert len({one.id for one in receiver.got}) == 2


def test_two_deliverers_at_once_tell_once(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings())
    telling.execute(start(telling))
    first, second = (Deliverer(telling.store, [receiver.settings()]) for _ in range(2))
    taken = [first.take(10), second.take(10)]
    assert [len(one) for one in taken] == [1, 0]
    # The first one dies: the delivery is due again after a while.
    assert telling.deliver() == 0
    assert telling.deliver(after=timedelta(minutes=1)) == 1
    assert receiver.types() == [ASKED]


def test_a_long_prompt_is_left_out_of_what_is_told(telling: Telling, receiver: Receiver) -> None:
    telling.tell(receiver.settings())
    telling.execute(start(telling, lambda run, _: run.ask("x" * 300_000, schema=str)))
    telling.deliver()
    (told,) = receiver.got
    assert told.data["left_out"] == ["question"]
    assert told.data["waits"][0]["key"] == "ask"


def test_who_is_not_told_writes_nothing(telling: Telling, receiver: Receiver) -> None:
    telling.tell()
    execution_id = start(telling)
    calls: list[Any] = []
    telling.store.documents.apply = lambda *call: calls.append(call)  # type: ignore[assignment, method-assign, func-returns-value]
    telling.execute(execution_id)
    telling.answer(execution_id, "red", "colour")
    telling.finish(execution_id)
    assert calls == []
