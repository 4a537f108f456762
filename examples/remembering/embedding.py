"""An embedding that needs no model: it knows that these words mean the same, and no others."""

from typing import Final

_MEANINGS: Final = (
    ("tea", "earl grey", "darjeeling", "drink"),
    ("nuts", "peanut", "almond", "allergic", "allergy"),
    ("room", "floor", "view", "quiet"),
    ("arrive", "train", "late", "pick up"),
)


def embed(texts: list[str]) -> list[list[float]]:
    """Return a vector for each text: how often it speaks of each of the things that a hotel must know."""
    return [_vector(text.lower()) for text in texts]


def _vector(text: str) -> list[float]:
    return [0.01, *(float(sum(text.count(word) for word in words)) for words in _MEANINGS)]
