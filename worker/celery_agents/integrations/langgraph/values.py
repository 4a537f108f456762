"""What nodes, models and tools return, as JSON that people can read, and back as what it was.

Messages are in LangChain's own form. Data classes, models of pydantic, enumerations and the like are kept by their
fields, with the name of their class; that class is looked for among what is loaded, and nothing is imported for it.
"""

import dataclasses
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Final

import pydantic
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
from langgraph.types import Send

from celery_agents.errors import InvalidResult

# What marks an object of JSON that stands for something else.
_KIND: Final = "__kind__"
_SIMPLE: Final[Mapping[str, type]] = {
    kind.__name__: kind for kind in (bytes, datetime, date, time, timedelta, uuid.UUID, Decimal, Path)
}
_GROUPS: Final[Mapping[str, Callable[[Any], Any]]] = {kind.__name__: kind for kind in (tuple, set, frozenset)}
_ADAPTERS: Final[Mapping[str, pydantic.TypeAdapter[Any]]] = {
    name: pydantic.TypeAdapter(kind, config={"ser_json_bytes": "base64", "val_json_bytes": "base64"})
    for name, kind in _SIMPLE.items()
}


def encode(value: Any) -> Any:
    """Return a value as JSON. Raise `InvalidResult` for what is none of data, such as a connection.

    A message without an id gets one: it keeps it in the record, and can be removed by it later.
    """
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else {_KIND: "float", "value": str(value)}
    if isinstance(value, BaseMessage):
        return _of_message(value)
    if isinstance(value, Enum):
        return {_KIND: "enum", "class": _name_of(type(value)), "name": value.name}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and _KIND not in value:
            return {key: encode(one) for key, one in value.items()}
        return {_KIND: "dict", "items": [[encode(key), encode(one)] for key, one in value.items()]}
    if isinstance(value, list):
        return [encode(one) for one in value]
    if isinstance(value, Send):
        return {_KIND: "send", "node": value.node, "arg": encode(value.arg), "timeout": encode(value.timeout)}
    if isinstance(value, pydantic.BaseModel):
        kept = {**{name: getattr(value, name) for name in type(value).model_fields}, **(value.model_extra or {})}
        return _of_class(value, kept)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _of_class(value, {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _of_class(value, value._asdict())
    for name, kind in _GROUPS.items():
        if type(value) is kind:
            return {_KIND: name, "items": [encode(one) for one in list(value)]}
    for name, kind in _SIMPLE.items():
        if type(value) is kind or (kind is Path and isinstance(value, PurePath)):
            return {_KIND: name, "value": _ADAPTERS[name].dump_python(value, mode="json")}
    raise InvalidResult(type(value).__qualname__, ["no JSON carries it: return data, messages or commands"])


def decode(value: Any) -> Any:
    """Return what was encoded. Raise `InvalidResult` where its class is not loaded, or has changed."""
    if isinstance(value, list):
        return [decode(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind is None:
        return {key: decode(one) for key, one in value.items()}
    if kind == "float":
        return float(value["value"])
    if kind == "message":
        return _as_message(value)
    if kind == "dict":
        return {decode(key): decode(one) for key, one in value["items"]}
    if kind == "send":
        return Send(value["node"], decode(value["arg"]), timeout=decode(value["timeout"]))
    if kind in _GROUPS:
        return _GROUPS[kind](decode(one) for one in value["items"])
    if kind in _SIMPLE:
        return _ADAPTERS[kind].validate_json(json.dumps(value["value"]))
    return _remade(kind, value)


def as_json(value: Any) -> Any:
    """Return a graph's output as plain JSON for whoever reads it; messages as LangChain takes them back as an input."""
    if isinstance(value, BaseMessage):
        return {"type": value.type, **as_json(value.model_dump(exclude_defaults=True))}
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(one) for one in value]
    if isinstance(value, pydantic.BaseModel):
        return {name: as_json(getattr(value, name)) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: as_json(getattr(value, one.name)) for one in dataclasses.fields(value)}
    return pydantic.TypeAdapter(Any).dump_python(value, mode="json")


def _of_message(message: BaseMessage) -> dict[str, Any]:
    artifact = getattr(message, "artifact", None)
    plain = message if artifact is None else message.model_copy(update={"artifact": None})
    form = message_to_dict(plain)
    data = {key: encode(one) for key, one in form["data"].items() if one is not None and key != "type"}
    data.setdefault("id", str(uuid.uuid4()))
    if artifact is not None:
        data["artifact"] = encode(artifact)
    return {_KIND: "message", "type": form["type"], "data": data}


def _as_message(value: Mapping[str, Any]) -> BaseMessage:
    (message,) = messages_from_dict([{"type": value["type"], "data": decode(value["data"])}])
    return message


def _of_class(value: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    named = _name_of(type(value))
    return {_KIND: "object", "class": named, "fields": {name: encode(one) for name, one in kept.items()}}


def _name_of(kind: type) -> str:
    # The class of a generic model that was given its types is made where that is done, and has no place in a module.
    named = f"{kind.__module__}:{kind.__qualname__}"
    if _loaded(named) is not kind:
        raise InvalidResult(named, ["a step's result is of a class that its module does not name: define it there"])
    return named


def _loaded(named: str) -> Any:
    module, _, path = named.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _remade(kind: str, value: Mapping[str, Any]) -> Any:
    named = value["class"]
    cls = _loaded(named)
    is_data = isinstance(cls, type) and (
        issubclass(cls, pydantic.BaseModel | Enum) or dataclasses.is_dataclass(cls) or hasattr(cls, "_asdict")
    )
    if not is_data:
        raise InvalidResult(named, ["the class of a recorded value is not loaded here, or is no class of data now"])
    if kind == "enum":
        return cls[value["name"]]
    kept = {name: decode(one) for name, one in value["fields"].items()}
    make: Callable[..., Any] = cls
    try:
        if issubclass(cls, pydantic.BaseModel):
            return cls.model_validate(kept, by_alias=False, by_name=True)
        return make(**kept)
    except (TypeError, ValueError) as error:
        raise InvalidResult(named, [f"a recorded value no longer fits its class: {error}"]) from error
