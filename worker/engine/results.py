"""The result of a step as it will be after a crash: through JSON and back, by its type."""

from typing import Any

import pydantic

from statestore.errors import InvalidRecord
from statestore.records import JSONValue
from worker import schema
from worker.errors import InvalidResult


def round_trip(returns: schema.Adapter, key: str, value: Any) -> tuple[Any, JSONValue]:
    """The value as it will be after a crash, and its JSON. Raises `InvalidResult`."""
    try:
        output = schema.to_json(returns, value)
        return schema.from_json(returns, output, key), output
    except pydantic.ValidationError as error:
        raise InvalidResult(key, schema.problems(error)) from error
    except InvalidRecord as error:
        raise InvalidResult(key, [str(error)]) from error
    except ValueError as error:
        raise InvalidResult(key, [f"not JSON-serialisable: {error}"]) from error
