from collections.abc import Iterator

import pytest

from tests.integrations.openai_agents.models import Models, made_models


@pytest.fixture
def models() -> Iterator[Models]:
    """The SDK's models, which are closed at the end."""
    with made_models() as models:
        yield models
