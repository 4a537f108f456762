"""Every block of Python on the pages about frameworks runs alone, as a reader pastes it."""

from pathlib import Path

import pytest

from tests.docs.pages import FRAMEWORK_PAGES, blocks
from tests.docs.test_blocks import alone


@pytest.mark.parametrize("page", FRAMEWORK_PAGES, ids=lambda page: page.name)
def test_every_block_runs_alone(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their clients want keys to be made; nothing of the blocks uses one.
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "none")
    texts = blocks(page)
    failed = [f"{text}\n{result}" for text, result in zip(texts, alone(texts), strict=True) if isinstance(result, str)]
    assert not failed, "\n".join(failed)
    assert texts
