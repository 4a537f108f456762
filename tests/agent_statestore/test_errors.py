"""Errors: they survive pickling, keep their facts, and say something."""

import inspect
import pickle

import pytest

from agent_statestore import errors
from agent_statestore.errors import InvalidRecord, StoreError

EXAMPLES: dict[str, tuple[object, ...]] = {
    "StoreError": (),
    "StoreUnavailable": ("redis://h", "gone"),
    "ExecutionNotFound": ("e",),
    "ExecutionOver": ("e", "failed"),
    "LeaseLost": ("e", 3),
    "LeaseHeld": ("e",),
    "IllegalTransition": ("e", "idle", "waiting"),
    "CheckpointConflict": ("e", "a", ""),
    "StepConflict": ("e", 3, 1),
    "SignalRefused": ("e", "q"),
    "QuestionNotAsked": ("e", "q"),
    "AlreadyAnswered": ("e", "q"),
    "MailboxFull": ("e", "q", 1000),
    "NoTransactions": ("memory://",),
    "ExecutionIdTaken": ("e",),
    "ForeignConnection": ("sqlite:///f", "it leads to another file"),
    "IdempotencyConflict": ("agent", "key", "e"),
    "IdempotencyKeyTaken": ("agent", "key"),
    "InvalidRecord": ("limit", "too small"),
    "NotSerialisable": ("input", "NaN"),
    "ValueTooLarge": ("input", 11, 10),
    "ContextTooLarge": ("e", 11, 10),
    "FormatTooNew": ("execution e", 2, 1),
    "ExecutionUnreadable": ("e", "input", "no JSON", None),
    "SchemaMismatch": ("sqlite:///f", None, "0001"),
    "StoreConfigurationError": ("why",),
    "UnknownScheme": ("mongo", ["memory", "redis"]),
    "MissingDriver": ("redis", "redis", "redis"),
    "UnsupportedURL": ("sqlite://", "it has no file"),
    "UnknownRevision": ("0009", "never heard of"),
}
ALL = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == errors.__name__
}


def test_every_error_has_an_example_here() -> None:
    assert EXAMPLES.keys() == ALL.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_error_survives_pickling(name: str) -> None:
    error = ALL[name](*EXAMPLES[name])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy), copy.args) == (str(error), vars(error), error.args)


@pytest.mark.parametrize("name", [name for name, facts in EXAMPLES.items() if facts])
def test_every_error_says_its_facts(name: str) -> None:
    error = ALL[name](*EXAMPLES[name])
    first = EXAMPLES[name][0]
    assert str(first) in str(error)


def test_every_error_has_one_root() -> None:
    assert all(issubclass(kind, StoreError) for kind in ALL.values())


def test_bad_input_is_also_a_value_error() -> None:
    assert issubclass(InvalidRecord, ValueError)


def test_every_error_is_drawn_in_the_tree_of_the_module() -> None:
    drawing = inspect.getdoc(errors) or ""
    assert all(name in drawing for name in ALL)
