"""The page of the documentation does what it says."""

from collections.abc import Callable

import pytest

from celery_agents.testing import LocalAgents
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.pages import run_page

Serve = Callable[..., ModelServer]


def test_the_example_answers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        return Calls(Call("find_order", {"order": 7})) if conversation.turn == 0 else Says(conversation.results[0])

    server = serve(**{"gpt-5": script})
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    page = run_page("langchain")
    execution = LocalAgents().start(page.support, "Where is my order 7?").run()
    assert execution.wait()["messages"][-1]["content"] == "order 7 is on its way"
    assert [step.action.kind for step in execution.steps()] == ["model", "tool", "model"]
