"""The hotel of the examples: what each kind of memory knows of a guest in a later execution."""

import pytest

from celery_agents.testing import LocalAgents, When
from examples.remembering.hotel import concierge, desk, kitchen


@pytest.fixture
def agents() -> LocalAgents:
    return LocalAgents()


def test_the_buffer_knows_the_conversation_and_sums_up_its_beginning(agents: LocalAgents) -> None:
    for message in ("I am Ada", "I like a quiet room", "I arrive by train at nine", "Is breakfast included?"):
        known = agents.start(desk, message, session_id="monday", user_id="ada").wait()
    assert known.startswith("Summary of the conversation so far:\nI am Ada; I like a quiet room")
    assert known.endswith("user: Is breakfast included?")
    assert agents.start(desk, "Hello", session_id="friday", user_id="ada").wait() == "user: Hello"


def test_the_facts_are_known_in_every_conversation(agents: LocalAgents) -> None:
    told = "I am allergic to peanuts. I prefer Darjeeling. What is the time?"
    assert agents.start(kitchen, told, user_id="ada").wait() == ""
    known = agents.start(kitchen, "A cake with almonds, please", user_id="ada").wait()
    assert known == "Known facts:\n- I am allergic to peanuts"
    assert agents.start(kitchen, "Some tea, please", user_id="ada").wait() == "Known facts:\n- I prefer Darjeeling"
    assert agents.start(kitchen, "Some tea, please", user_id="bob").wait() == ""


def test_both_know_both_whatever_dies(agents: LocalAgents) -> None:
    agents.crash_at("extract", When.AFTER_CHECKPOINT)
    first = agents.start(concierge, "I am allergic to nuts", session_id="monday", user_id="ada")
    with pytest.raises(TimeoutError):
        first.wait()
    first.wait()
    agents.start(concierge, "I prefer Earl Grey", session_id="friday", user_id="ada").wait()
    known = agents.start(concierge, "Any drink without almond?", session_id="friday", user_id="ada").wait()
    assert known.count("allergic to nuts") == 1
    assert "- I prefer Earl Grey" in known
    assert "user: I prefer Earl Grey\nassistant: Noted.\nuser: Any drink without almond?" in known
