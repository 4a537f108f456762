"""What stands in for an exception that cannot be made again as it was: of its class, without running its code."""

from typing import Any, Self

from agent_statestore.records import ErrorInfo, JSONValue
from celery_agents.engine.journal.carried import with_tuples
from celery_agents.engine.journal.remaking import bare, set_field
from celery_agents.errors import StepFailed


class StandIn(StepFailed):
    """The part of a stand-in that is the same for all. `recorded` is the error that it stands in for."""

    recorded: ErrorInfo
    is_of_its_class: bool

    def __init_subclass__(cls) -> None:
        """Run nothing of the class that is stood in for."""

    @classmethod
    def of(
        cls, info: ErrorInfo, kind: type[Exception] | None, members: list[Exception], *, is_of_its_class: bool = False
    ) -> Self:
        """Return a stand-in that is of this class too. Raise `Exception` if none can be.

        The layout of the class may not go with ours, or its metaclass may object.
        """
        bases: tuple[type[Any], ...] = (cls,) if kind is None or issubclass(cls, kind) else (cls, kind)
        args, fields = args_and_fields(info)
        own = {name for base in bases[1:] for one in base.__mro__ for name in vars(one)} if is_of_its_class else set()
        ours = {"type": info.type, "message": info.message, "bases": info.bases}
        module, _, name = info.type.partition(":") if is_of_its_class else (cls.__module__, ":", StepFailed.__name__)
        namespace: dict[str, Any] = {
            **{field: _NotKept(field, info) for field in info.not_kept if _is_field(field) and field not in fields},
            "recorded": info,
            "not_kept": info.not_kept,
            "is_of_its_class": is_of_its_class,
            "__module__": module,
            "__qualname__": name,
        }
        # A class's own fields go before those of `StepFailed`.
        namespace |= {field: value for field, value in ours.items() if field not in own and field not in namespace}
        made: type[Self] = type(name.rpartition(".")[2], bases, namespace)
        error: Self = bare(made, args, members)
        for field, value in fields.items():
            if is_of_its_class or field not in ours:
                set_field(error, field, value)
        return error

    def __str__(self) -> str:
        recorded = self.recorded
        return recorded.message if self.is_of_its_class else f"{recorded.type}: {recorded.message}"

    def __repr__(self) -> str:
        recorded = self.recorded
        lost = f", not kept: {', '.join(recorded.not_kept)}" if recorded.not_kept else ""
        return f"{type(self).__name__}({str(self)!r}{lost})"

    def __reduce__(self) -> tuple[Any, ...]:
        return StepFailed, (self.recorded.type, self.recorded.message)  # the class itself is found nowhere


def _is_field(name: str) -> bool:
    """Return whether this is no argument, no `__cause__` and no list of members, which are what they are."""
    return name.isidentifier() and not name.startswith("__") and name != "exceptions"


class _NotKept:
    """A field that JSON could not carry: reading it must not give the default of the class."""

    def __init__(self, name: str, info: ErrorInfo) -> None:
        self._name = name
        self._type = info.type

    def __get__(self, error: object, kind: type) -> object:
        if error is None:
            return self
        raise AttributeError(f"{self._name!r} of {self._type} was not kept, as JSON does not carry it")


def args_and_fields(info: ErrorInfo) -> tuple[tuple[JSONValue, ...], dict[str, Any]]:
    """Return the recorded arguments and fields, with tuples where there were tuples."""
    both = with_tuples({"args": list(info.args or ()), "fields": dict(info.fields)}, info.tuples)
    return tuple(both["args"]), both["fields"]
