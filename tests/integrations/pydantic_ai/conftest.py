from collections.abc import Iterator

import pytest

from tests.integrations.pydantic_ai.models import Models, made_models


@pytest.fixture
def models() -> Iterator[Models]:
    """Pydantic AI's models, which are closed at the end."""
    with made_models() as models:
        yield models
