"""What an annotation alone shows: types of which no value could come back from JSON as it was."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pydantic
from pydantic_core import SchemaSerializer

# The key of a JSON object is a text. These types are not read from the text that pydantic writes for them.
_NO_KEYS: Final[Mapping[str, str]] = {
    "none": "None",
    "tuple": "a tuple",
    "list": "a list",
    "set": "a set",
    "frozenset": "a frozenset",
    "dict": "a dict",
    "model": "a model",
    "dataclass": "a dataclass",
    "typed-dict": "a dict",
}
_NO_VALUES: Final[Mapping[str, str]] = {
    "callable": "a function is no JSON",
    "generator": "an iterator can be gone through only once; return a list",
}
# What stands under these keys of a core schema says nothing of values in JSON.
_NO_SCHEMAS: Final = frozenset(
    {"metadata", "config", "cls", "function", "default", "default_factory", "expected", "members", "python_schema"}
)
_PROBE: Final = "probe"
_SECRETS: Final = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)


class Uncarriable(ValueError):
    """A type of which no value could come back from JSON as it was."""


def check(adapter: "pydantic.TypeAdapter[Any]") -> None:
    """Raise `Uncarriable` for such a type, wherever it stands in the annotation."""
    schema: Any = adapter.core_schema
    for node in _nodes(schema if isinstance(schema, dict) else dict(schema)):
        fault = _fault(node)
        if fault is not None:
            raise Uncarriable(fault)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list | tuple):
        for one in node:
            yield from _nodes(one)
    elif isinstance(node, dict):
        is_schema = isinstance(node.get("type"), str)
        if is_schema:
            yield node
            if "serialization" in node and node["type"] != "json-or-python":
                return  # it writes itself in a way of its own, which only a value can prove
        for key, one in node.items():
            if not (is_schema and key in _NO_SCHEMAS):
                yield from _nodes(one)


def _fault(node: dict[str, Any]) -> str | None:
    kind = node["type"]
    if kind in _NO_VALUES and "serialization" not in node:
        return _NO_VALUES[kind]
    if kind == "dict":
        key = _NO_KEYS.get(_inner(node.get("keys_schema")))
        return None if key is None else f"a key of a JSON object is a text, and {key} is not read from it"
    if kind == "json-or-python" and _masks(node):
        return "it masks a secret; give the model's field a serializer that does not, or pass where the secret stands"
    if kind in ("model-field", "dataclass-field", "typed-dict-field"):
        is_required = node["schema"]["type"] != "default" and node.get("required", True)
        if node.get("serialization_exclude") is True and is_required:
            return "a field is required and excluded from what is written"
    return None


def _inner(schema: dict[str, Any] | None) -> str:
    while schema is not None and schema["type"] in ("function-before", "function-after", "default"):
        schema = schema["schema"]
    return "any" if schema is None else str(schema["type"])


def _masks(node: dict[str, Any]) -> bool:
    """Return whether what writes this type masks a secret. A field's own serializer stands in its place."""
    made = node.get("json_schema", {}).get("function", {})
    kind = made.get("function") if isinstance(made, dict) else None
    if not (isinstance(kind, type) and issubclass(kind, _SECRETS)):
        return False
    probe: Any = _PROBE.encode() if issubclass(kind, pydantic.SecretBytes) else _PROBE
    secret = kind(probe)
    written = SchemaSerializer({"type": "any", "serialization": node["serialization"]}).to_python(secret, mode="json")
    return bool(written != _PROBE)
