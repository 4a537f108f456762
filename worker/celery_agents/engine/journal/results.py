"""The result of a step as it will be after a crash: through JSON and back, by its type."""

from typing import Any

import pydantic

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue
from celery_agents.define import types
from celery_agents.errors import InvalidResult


def round_trip(returns: types.Adapter, key: str, value: Any) -> tuple[Any, JSONValue]:
    """The value as it will be after a crash, and its JSON. Raises `InvalidResult`."""
    try:
        output = types.to_json(returns, value)
        return types.from_json(returns, output, key), output
    except pydantic.ValidationError as error:
        raise InvalidResult(key, types.problems(error)) from error
    except InvalidRecord as error:
        raise InvalidResult(key, [str(error)]) from error
    except ValueError as error:
        raise InvalidResult(key, [f"not JSON-serialisable: {error}"]) from error
