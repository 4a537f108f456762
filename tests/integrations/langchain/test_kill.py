"""Workers that run an agent of LangChain are killed with SIGKILL: what was recorded is never paid for again."""

import pytest

from tests.integrations.deaths import Deaths

pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("framework-workers")]


class TestLangChain(Deaths):
    framework = "LangChain"
    module = "tests.integrations.langchain.killed"
