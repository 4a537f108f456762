"""The page of the documentation does what it says."""

from types import ModuleType

import pytest

from celery_agents.testing import LocalAgents
from tests.integrations.pages import run_page


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return run_page("langgraph")


def test_the_example_waits_and_goes_on(page: ModuleType) -> None:
    execution = LocalAgents().start(page.writer, {"topic": "tea"}).run()
    (wait,) = execution.summary().waits
    assert (wait.key, wait.prompt) == ("ask review", {"draft": "All about tea."})
    execution.resume("good", key=wait.key)
    assert execution.wait() == {"topic": "tea", "draft": "All about tea.", "verdict": "good"}


def test_the_chat_remembers(page: ModuleType) -> None:
    local = LocalAgents()
    local.start(page.chat, "Hello", session_id="customer-17").run()
    messages = local.start(page.chat, "Again", session_id="customer-17").run().wait()["messages"]
    said = ["Hello", "You have said 1 things.", "Again", "You have said 3 things."]
    assert [message["content"] for message in messages] == said
