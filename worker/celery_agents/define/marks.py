"""Marks in JSON that keep apart what pydantic's JSON does not: members of a union, and subclasses.

    {"$class": "Rejected", "reason": "too late"}        a member of a union of classes, or a subclass
    {"$class": "tuple", "$value": [1, 2]}               anything else

Marks are written only where the plain JSON of a value would be read as something else, so most records have none. What
a mark names is looked for among the members of the union that stands there, and the subclasses of the class that stands
there as far as they are loaded. A stored name never leads to anything else, and nothing is imported for it.
"""

import datetime as dt
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property, lru_cache
from types import NoneType
from typing import Any, Final, TypeAlias
from uuid import UUID

import pydantic
from pydantic_core import (
    PydanticCustomError,
    PydanticSerializationUnexpectedValue,
    SchemaSerializer,
    SchemaValidator,
)

from agent_statestore.envelope import dump
from agent_statestore.records import JSONValue
from celery_agents.define.likeness import difference

MARK: Final = "$class"
VALUE: Final = "$value"
# In JSON text only a key looks like this: within a text the quotes would be escaped.
AS_KEY: Final = f'"{MARK}":'

Schema: TypeAlias = dict[str, Any]
Adapter: TypeAlias = pydantic.TypeAdapter[Any]

# What stands under these keys of a core schema is no schema of values to be marked.
_NO_SCHEMAS: Final = frozenset(
    {"metadata", "config", "cls", "function", "serialization", "default", "default_factory", "expected", "members"}
)
_KINDS: Final[Mapping[str, type]] = {
    "none": NoneType,
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "str": str,
    "bytes": bytes,
    "decimal": Decimal,
    "uuid": UUID,
    "date": dt.date,
    "time": dt.time,
    "datetime": dt.datetime,
    "timedelta": dt.timedelta,
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "typed-dict": dict,
}
_SCALARS: Final = (NoneType, bool, int, float, str)


class Marked:
    """The JSON of one annotation with marks. Its methods raise what pydantic's do."""

    def __init__(self, adapter: Adapter) -> None:
        schema: Schema = dict(adapter.core_schema)
        plain: list[Schema] = []
        if schema["type"] == "definitions":
            plain, schema = schema["definitions"], schema["schema"]
        self._definitions = _Definitions(plain=plain)
        self._definitions.marked.extend(
            {**self._definitions.mark(one), "ref": one["ref"]} for one in self._definitions.plain
        )
        self._form = _Form(self._definitions, schema)

    def dump(self, value: Any, *, by_alias: bool | None, round_trip: bool) -> JSONValue:
        """Return the value as JSON-able Python."""
        return self._form.dump(value, by_alias=by_alias, round_trip=round_trip)

    def read(self, text: str) -> Any:
        """Return the value of such JSON, as text."""
        return self._form.read_text(text)


# The keys are weak, as an adapter that is made for one step is not to be kept.
_marked: "weakref.WeakKeyDictionary[Adapter, Marked]" = weakref.WeakKeyDictionary()


def marked(adapter: Adapter) -> Marked:
    """Return the JSON with marks of an adapter's annotation."""
    known = _marked.get(adapter)
    if known is None:
        known = _marked[adapter] = Marked(adapter)
    return known


@lru_cache(maxsize=256)
def _marked_class(kind: type) -> Marked:
    return Marked(pydantic.TypeAdapter(kind))


@dataclass
class _Definitions:
    """The schemas that others of one annotation refer to, as pydantic has them and with marks."""

    plain: list[Schema]
    marked: list[Schema] = field(default_factory=list)

    def mark(self, node: Any) -> Any:
        """Return a schema in which each class and each union writes and reads marks."""
        if isinstance(node, list | tuple):
            return type(node)(self.mark(one) for one in node)
        if not isinstance(node, dict):
            return node
        kind = node.get("type")
        if not isinstance(kind, str):  # fields by name
            return {key: self.mark(one) for key, one in node.items()}
        # A schema that stands in two places must not define its name twice.
        changed = {key: one if key in _NO_SCHEMAS else self.mark(one) for key, one in node.items() if key != "ref"}
        if kind in ("model", "dataclass"):
            return _ClassNode(self, node, changed).schema
        if kind == "union":
            return _UnionNode(self, node).schema
        return changed

    def find(self, ref: str) -> Schema:
        """Return the schema of this name, as pydantic has it."""
        return next(one for one in self.plain if one["ref"] == ref)


class _Form:
    """The JSON of one schema: without marks where there are none, else with them."""

    def __init__(self, definitions: _Definitions, plain: Schema, marked: Schema | None = None) -> None:
        self._definitions = definitions
        self._plain = plain
        self._given = marked

    @cached_property
    def _marked(self) -> Schema:
        return self._complete(self._given or self._definitions.mark(self._plain), self._definitions.marked)

    @cached_property
    def _serializer(self) -> SchemaSerializer:
        return SchemaSerializer(self._marked, _use_prebuilt=False)

    @cached_property
    def _marked_validator(self) -> SchemaValidator:
        return SchemaValidator(self._marked, _use_prebuilt=False)

    @cached_property
    def _plain_validator(self) -> SchemaValidator:
        return SchemaValidator(self._complete(self._plain, self._definitions.plain))

    @staticmethod
    def _complete(schema: Schema, definitions: list[Schema]) -> Schema:
        schema = {key: value for key, value in schema.items() if key != "ref"}
        return {"type": "definitions", "schema": schema, "definitions": definitions} if definitions else schema

    def dump(self, value: Any, *, by_alias: bool | None, round_trip: bool) -> JSONValue:
        return self._serializer.to_python(
            value, mode="json", by_alias=by_alias, round_trip=round_trip, warnings="error"
        )

    def read_text(self, text: str) -> Any:
        # As text, because pydantic's strict types accept a date's text, say, only from JSON.
        validator = self._marked_validator if AS_KEY in text else self._plain_validator
        return validator.validate_json(text, by_alias=True, by_name=True)

    def read(self, value: JSONValue) -> Any:
        return self.read_text(dump(value, "value"))

    def read_unmarked(self, value: JSONValue) -> Any:
        """Read what has no mark, as pydantic does; keys of the user's may look like marks."""
        return self._plain_validator.validate_json(dump(value, "value"), by_alias=True, by_name=True)


def _node(read: Callable[[Any], Any], write: Callable[[Any, Any], Any]) -> Schema:
    return {
        "type": "function-plain",
        "function": {"type": "no-info", "function": read},
        "serialization": {"type": "function-plain", "function": write, "info_arg": True},
    }


class _ClassNode:
    """A place where an instance of a class stands, or one of a subclass."""

    def __init__(self, definitions: _Definitions, plain: Schema, changed: Schema) -> None:
        self.kind: type = plain["cls"]
        self._form = _Form(definitions, plain, changed)
        self.schema = _node(self.read, self.write)

    def write(self, value: Any, info: Any) -> JSONValue:
        if not isinstance(value, self.kind):
            raise PydanticSerializationUnexpectedValue(f"Expected {self.kind.__qualname__}")
        kind: Any = type(value)
        if kind is self.kind:
            output = self._form.dump(value, by_alias=info.by_alias, round_trip=info.round_trip)
            # What looks like a mark is no mark, and gets one.
            return with_mark(_label(kind, (kind,)), output) if _is_marked(output) else output
        output = _marked_class(kind).dump(value, by_alias=info.by_alias, round_trip=info.round_trip)
        return output if _is_marked(output) else with_mark(_label(kind, (self.kind,)), output)

    def read(self, value: JSONValue) -> Any:
        if not _is_marked(value):
            return self._form.read(value)
        kind = _find(value[MARK], (self.kind,))
        if kind is None:
            raise _unknown(value[MARK])
        body = without_mark(value)
        return self._form.read(body) if kind is self.kind else _marked_class(kind).read(dump(body, "value"))


class _UnionNode:
    """A place where one of several types stands."""

    def __init__(self, definitions: _Definitions, plain: Schema) -> None:
        self._form = _Form(definitions, plain)
        schemas = [one[0] if isinstance(one, tuple) else one for one in plain["choices"]]
        self._definitions = definitions
        self._schemas = schemas
        self.schema = _node(self.read, self.write)

    @cached_property
    def _members(self) -> "list[_Member]":
        members = [_Member.of(self._definitions, schema) for schema in self._schemas]
        for member in members:
            alike = [one for one in members if one.label == member.label]
            if len(alike) > 1 and not member.is_class:
                for number, one in enumerate(alike, 1):
                    one.label = f"{one.label}#{number}"
        return members

    @cached_property
    def _classes(self) -> tuple[type, ...]:
        return tuple(member.kind for member in self._members if member.is_class and member.kind is not None)

    def write(self, value: Any, info: Any) -> JSONValue:
        for member, is_sure in self._candidates(value):
            try:
                output = member.form.dump(value, by_alias=info.by_alias, round_trip=info.round_trip)
                if not is_sure and difference(value, member.form.read(output)) is not None:
                    continue
            except ValueError:  # not of this member, as pydantic has it
                continue
            return self._with_mark(member, value, output)
        raise PydanticSerializationUnexpectedValue(f"Expected one of {', '.join(one.label for one in self._members)}")

    def _candidates(self, value: Any) -> "Iterator[tuple[_Member, bool]]":
        """Yield the members that the value may be of, the likeliest first, and whether it can be no other one."""
        exact = [member for member in self._members if member.kind is type(value)]
        if len(exact) == 1:
            yield exact[0], True
            return
        wider = [one for one in self._members if one.is_class and one.kind is not None and isinstance(value, one.kind)]
        for member in exact or sorted(wider, key=lambda one: type(value).__mro__.index(one.kind or object)):
            yield member, False
        for member in self._members:
            if member.kind is None:
                yield member, False

    def _with_mark(self, member: "_Member", value: Any, output: JSONValue) -> JSONValue:
        if member.is_class:
            return output if _is_marked(output) else with_mark(_label(type(value), self._classes), output)
        if type(value) in _SCALARS and output == value and difference(value, self._form.read(output)) is None:
            return output
        return {MARK: member.label, VALUE: output}

    def read(self, value: JSONValue) -> Any:
        if not _is_marked(value):
            return self._form.read_unmarked(value)
        label = value[MARK]
        kind = _find(label, self._classes)
        for member in self._members:
            if member.is_class and kind is not None and issubclass(kind, member.kind or object):
                return member.form.read(value)
            if member.label == label and VALUE in value and not member.is_class:
                return member.form.read(value[VALUE])
        raise _unknown(label)


@dataclass
class _Member:
    """A member of a union. `kind` is the one type that its values have, where that can be told."""

    form: _Form
    kind: type | None
    is_class: bool
    label: str

    @classmethod
    def of(cls, definitions: _Definitions, schema: Schema) -> "_Member":
        inner = schema
        while True:
            name = inner["type"]
            if name == "definition-ref":
                inner = definitions.find(inner["schema_ref"])
            elif name in ("function-before", "function-after", "default"):
                inner = inner["schema"]
            else:
                break
        is_class = name in ("model", "dataclass")
        kind: Any = _KINDS.get(name)
        if is_class or name == "enum":
            kind = inner["cls"]
        elif name == "call":  # a named tuple
            kind = inner["function"] if isinstance(inner["function"], type) else None
        label = name if kind is None else kind.__qualname__
        return cls(form=_Form(definitions, schema), kind=kind, is_class=is_class, label=label)


# -- marks and names ---------------------------------------------------------------------------------------------------


def with_mark(label: str, output: JSONValue) -> JSONValue:
    """Return the JSON of an instance with the mark of its class."""
    if isinstance(output, dict) and MARK not in output and VALUE not in output:
        return {MARK: label, **output}
    return {MARK: label, VALUE: output}


def without_mark(value: JSONValue) -> JSONValue:
    """Return what `with_mark` was given."""
    return value[VALUE] if VALUE in value else {key: one for key, one in value.items() if key != MARK}


def _is_marked(value: JSONValue) -> bool:
    return isinstance(value, dict) and isinstance(value.get(MARK), str)


def _label(kind: type, roots: tuple[type, ...]) -> str:
    """Return a name by which `_find` finds the class. Without its module, as scripts have that as `__main__`."""
    for label in (kind.__qualname__, f"{kind.__module__}:{kind.__qualname__}"):
        if _find(label, roots) is kind:
            return label
    raise PydanticSerializationUnexpectedValue(f"several classes have the name {kind.__qualname__}")


def _find(label: str, roots: tuple[type, ...]) -> type | None:
    """Return the one class of this name among these classes and their loaded subclasses."""
    module, _, name = label.rpartition(":")
    found: set[type] = {one for root in roots for one in _family(root) if one.__qualname__ == name}
    if module:
        found = {one for one in found if one.__module__ == module}
    if len(found) > 1:  # a module that was loaded again, or a dataclass with slots, leaves its old class behind
        found = {one for one in found if _is_at_its_place(one)}
    return found.pop() if len(found) == 1 else None


def _family(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = kind.__subclasses__()
    for subclass in subclasses:
        yield from _family(subclass)


def _is_at_its_place(kind: type) -> bool:
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    return found is kind


def _unknown(label: str) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_class",
        "it was recorded as {label}, which is no class that may stand here and is loaded; import its module where the "
        "agent is defined",
        {"label": label},
    )
