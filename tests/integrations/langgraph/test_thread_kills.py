"""Processes that work on threads die, or work at the same time: a thread is whole, and has each turn once."""

import functools
import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent_statestore import open_store
from agent_statestore.testing.kit.processes import process_team
from celery_agents.client.execution import Execution
from celery_agents.integrations.langgraph import StoreSaver
from celery_agents.testing.llm import ModelServer
from tests.integrations.killing import Place
from tests.integrations.langgraph.chats import THREAD, run_until_killed, talking, write_as_one_of_several
from tests.services.commands import wait_until
from tests.services.machine import scaled

pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("langgraph-workers")]
# The input, two nodes, and the writes of each on top of the checkpoint before.
WRITES = 6
PROCESSES = 4


def test_a_chat_remembers_across_the_death_of_a_worker(tmp_path: Path) -> None:
    server = ModelServer({})
    place = Place(folder=tmp_path, module="tests.integrations.langgraph.chats", server=server, pool="prefork")
    with place.client() as client:

        def start(text: str) -> Execution:
            context = client.store.create_context("chat", {"said": [text]}, session_id="s")
            client.ring(context)
            return Execution(context.execution_id, client)

        worker = place.start_worker()
        try:
            assert start("first").wait(scaled(60)) == ["first", "heard 1", "said 2"]
            second = start("wait")
            wait_until("the second node is called", lambda: place.calls.count("say wait") == 1)
            third = start("beside").wait
            with pytest.raises(Exception, match="NamespaceHeld"):
                third(scaled(60))
            worker.kill()
            worker = place.start_worker()
            wait_until("the second node is called again", lambda: place.calls.count("say wait") == 2)
            (tmp_path / "gate").touch()
            expected = ["first", "heard 1", "said 2", "wait", "heard 4", "said 5"]
            assert second.wait(scaled(60)) == expected
            assert start("last").wait(scaled(60)) == [*expected, "last", "heard 7", "said 8"]
        finally:
            worker.kill()
            server.close()
        found = list(StoreSaver(client.store).list({"configurable": {"thread_id": "s"}}))
        assert [len(each.checkpoint["channel_values"]["said"]) for each in found] == [9, 6, 3]
    once = {f"{node} {text}": 1 for node in ("hear", "say") for text in ("first", "wait", "last")}
    assert Counter(place.calls) == Counter(once) + Counter({"say wait": 1})


@pytest.mark.full
@pytest.mark.parametrize("is_after", [False, True])
def test_a_thread_is_whole_wherever_its_process_dies(tmp_path: Path, is_after: bool) -> None:
    """Before and after each write: the graph goes on from what is there, as with any saver."""
    expected = ["hello", "heard 1", "said 2"]
    for writes in range(1, WRITES + 1):
        url = f"sqlite:///{tmp_path}/{writes}.db"
        with open_store(url) as store:
            store.migrate()  # type: ignore[attr-defined]
            server: Any = multiprocessing.get_context("forkserver")
            process = server.Process(target=functools.partial(run_until_killed, is_after=is_after), args=(url, writes))
            process.start()
            process.join(scaled(60))
            assert process.exitcode == -9, (writes, process.exitcode)
            graph = talking(StoreSaver(store))
            # Nothing is there if it died before its first checkpoint; from any other one the graph goes on.
            is_begun = graph.get_state(THREAD).config["configurable"].get("checkpoint_id") is not None
            graph.invoke(None if is_begun else {"said": ["hello"]}, THREAD)
            assert graph.get_state(THREAD).values["said"] == expected, writes


@pytest.mark.full
def test_of_executions_in_several_processes_one_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/agents.db"
    with open_store(url) as store, process_team(PROCESSES) as team:
        store.migrate()  # type: ignore[attr-defined]
        answers = [each for each in team.run(functools.partial(open_store, url), None, write_as_one_of_several) if each]
        assert len(answers) == 1
        assert talking(StoreSaver(store)).get_state(THREAD).values["said"] == answers[0]
