"""Every block of Python on the pages about frameworks runs alone, as a reader pastes it."""

from pathlib import Path

import pytest

from tests.docs.pages import FRAMEWORK_PAGES, blocks
from tests.docs.test_blocks import alone

# What takes long to import, by page.
DEAR = {
    "pydantic-ai": ("celery_agents.integrations.pydantic_ai", "pydantic_ai.models.openai"),
    "openai-agents": ("celery_agents.integrations.openai_agents",),
    "langchain": ("celery_agents.integrations.langchain", "langchain_openai"),
    "langgraph": ("celery_agents.integrations.langgraph", "langchain_openai"),
}


@pytest.mark.parametrize("page", FRAMEWORK_PAGES, ids=lambda page: page.stem)
def test_every_block_runs_alone(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their clients want keys to be made; nothing of the blocks uses one.
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "none")
    texts = blocks(page)
    results = alone(texts, *DEAR[page.stem])
    failed = [f"{text}\n{result}" for text, result in zip(texts, results, strict=True) if isinstance(result, str)]
    assert not failed, "\n".join(failed)
    assert texts
