"""The compose file as Compose would see it: variables filled in, words split."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from tests.services.commands import ROOT

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file, with variables as given and otherwise with their defaults."""

    def fill(found: re.Match[str]) -> str:
        return "$" if found["escaped"] else variables.get(found["name"]) or found["default"] or ""

    text = (ROOT / "docker-compose.yml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(fill, text))
    return loaded


class Service:
    """What one service runs, at other addresses: those of the servers that stand in for its neighbours."""

    def __init__(self, definition: Mapping[str, Any], addresses: Mapping[str, str]) -> None:
        self._definition = definition
        self._addresses = addresses

    @property
    def command(self) -> list[str]:
        """Program and arguments."""
        return shlex.split(self._at_addresses(self._definition["command"]))

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it gets."""
        return {name: self._at_addresses(value) for name, value in self._definition.get("environment", {}).items()}

    @property
    def healthcheck(self) -> list[str]:
        """Program and arguments that tell whether it is well."""
        kind, *words = self._definition["healthcheck"]["test"]
        assert kind in {"CMD", "CMD-SHELL"}
        words = [self._at_addresses(word) for word in words]
        return ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words

    def _at_addresses(self, text: str) -> str:
        for there, here in self._addresses.items():
            text = text.replace(there, here)
        return text
