"""Workers that run an agent of the SDK are killed with SIGKILL: what was recorded is never paid for again."""

import pytest

from tests.integrations.deaths import Deaths

pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("framework-workers")]


class TestOpenAIAgents(Deaths):
    framework = "OpenAI Agents SDK"
    module = "tests.integrations.openai_agents.killed"
