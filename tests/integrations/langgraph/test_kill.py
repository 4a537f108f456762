"""Workers that run a graph of LangGraph are killed with SIGKILL: what was recorded is never paid for again."""

import pytest

from tests.integrations.deaths import Deaths

pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("framework-workers")]


class TestLangGraph(Deaths):
    framework = "LangGraph"
    module = "tests.integrations.langgraph.killed"
