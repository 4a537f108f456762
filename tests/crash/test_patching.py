"""What crash tests put in the place of ours is still there, so that a mechanism that is switched off is off."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.crash import sabotage
from tests.crash.ledger import FOLDER_VARIABLE, WORKER_VARIABLE
from tests.crash.patching import put, put_on_instances
from tests.services.commands import ROOT
from tests.services.machine import scaled

MECHANISMS = [name for name in vars(sabotage) if name.startswith("no_")]
WATCHERS = ["bookings", "effects_dying", "effects_without_intents", "family", "family_without_keys", "people_clock"]


class Theirs:
    def __init__(self) -> None:
        self.until = 1.0

    def sweep(self, limit: int) -> int:
        return limit


def nothing(self: Theirs, limit: int) -> int:
    return 0


def more(self: Theirs, most: int) -> int:
    return most


def anything(self: Theirs, *limits: int) -> int:
    return -1


def later(self: Theirs) -> float:
    return 2.0


@pytest.mark.parametrize("imported", ["sabotage", *WATCHERS, "quick_archive", "another_host"])
def test_everything_that_is_replaced_in_a_worker_is_there(imported: str) -> None:
    variables = {sabotage.VARIABLE: ",".join(MECHANISMS), FOLDER_VARIABLE: str(ROOT), WORKER_VARIABLE: "one"}
    ran = subprocess.run(
        [sys.executable, "-c", f"import tests.crash.{imported}"],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_there_are_mechanisms_to_switch_off() -> None:
    assert len(MECHANISMS) == 19


def test_an_unknown_mechanism_is_not_switched_off() -> None:
    with pytest.raises(KeyError, match="no_gravity"):
        sabotage.switch_off("no_gravity")


def test_what_is_gone_is_not_replaced() -> None:
    with pytest.raises(AttributeError, match="sweeep"):
        put(Theirs, "sweeep", nothing)
    with pytest.raises(AttributeError, match="Theirs sets no till"):
        put_on_instances(Theirs, "till", property(later))
    with pytest.raises(AttributeError, match="sleep"):
        put(SimpleNamespace(), "sleep", None)


def test_what_takes_other_arguments_is_not_replaced() -> None:
    with pytest.raises(TypeError, match=r"Theirs.sweep takes self, limit, not self, most"):
        put(Theirs, "sweep", more)


def test_what_is_there_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Theirs, "sweep", Theirs.sweep)  # put back in the end
    put(Theirs, "sweep", nothing)
    assert Theirs().sweep(3) == 0
    put(Theirs, "sweep", anything)
    assert Theirs().sweep(3) == -1


def test_each_mechanism_is_switched_off_by_a_test() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests/crash").glob("test_*.py"))
    assert [name for name in MECHANISMS if not re.search(rf'["(,]{name}[",]', tests)] == []
