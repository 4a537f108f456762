"""The vectors of items: of which texts they are made, how they are kept, and how near they are to a question's."""

import base64
import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langgraph.store.base import IndexConfig, PutOp, ensure_embeddings, get_text_at_path, tokenize_path

_WHOLE: Final = "$"


class Index:
    """What of each item is embedded by default, and by which function."""

    def __init__(self, config: IndexConfig) -> None:
        self.embeddings = ensure_embeddings(config["embed"])
        self._fields = tuple(config.get("fields") or (_WHOLE,))

    def texts(self, put: PutOp) -> dict[str, str]:
        """Return the texts of an item that are embedded, by their paths in it."""
        if put.value is None or put.index is False:
            return {}
        found: dict[str, str] = {}
        for path in self._fields if put.index is None else put.index:
            texts = get_text_at_path(put.value, path if path == _WHOLE else tokenize_path(path))
            found |= {path if len(texts) == 1 else f"{path}.{at}": text for at, text in enumerate(texts)}
        return found


def packed(vector: Sequence[float]) -> str:
    """Return a vector as text: as floats of 32 bits, as embeddings are."""
    return base64.b64encode(array("f", vector).tobytes()).decode()


def unpacked(text: str) -> "array[float]":
    """Return the vector."""
    return array("f", base64.b64decode(text))


def likeness(question: Sequence[float], vectors: Mapping[str, str]) -> float | None:
    """Return the cosine between the question and that of an item's vectors which is nearest; None without any."""
    return max((_cosine(question, unpacked(each)) for each in vectors.values()), default=None)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    product: Any = sum(a * b for a, b in zip(one, other, strict=True))
    return float(product / lengths) if lengths else 0.0
