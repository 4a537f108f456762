"""The page of the documentation does what it says."""

from celery_agents.testing import LocalAgents
from tests.integrations.pages import run_page


def test_the_example_waits_and_goes_on() -> None:
    execution = LocalAgents().start(run_page("langgraph").writer, {"topic": "tea"}).run()
    (wait,) = execution.summary().waits
    assert (wait.key, wait.prompt) == ("ask review", {"draft": "All about tea."})
    execution.resume("good", key=wait.key)
    assert execution.wait() == {"topic": "tea", "draft": "All about tea.", "verdict": "good"}
