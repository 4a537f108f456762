"""A run ends with one line about the services that it lacked."""

import os
import subprocess
import sys
from pathlib import Path

from tests.services.leaving_out import left_out
from tests.services.machine import scaled
from tests.services.process import ROOT

TESTS = """
import pytest
from tests.services.process import absent

@pytest.mark.parametrize("number", range(3))
def test_on_mariadb(number):
    absent("MariaDB", "install it, or set TEST_MARIADB_URL")

def test_with_tls():
    absent("Redis with TLS", "put one on PATH")

def test_otherwise():
    pytest.skip("not today")
"""
LINE = (
    "Tests left out on this machine, which CI does not accept: "
    "3 without MariaDB (install it, or set TEST_MARIADB_URL); 1 without Redis with TLS (put one on PATH)"
)


def run(folder: Path, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The tests in a run of their own."""
    (folder / "test_lacking.py").write_text(TESTS)
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), *options),
            *(f"--rootdir={ROOT}", "-p", "no:cacheprovider", str(folder / "test_lacking.py")),
        ],
        cwd=ROOT,
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )


def test_the_last_line_says_what_was_left_out_and_how_to_have_it(tmp_path: Path) -> None:
    ran = run(tmp_path, "-n", "2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == LINE


def test_in_ci_a_missing_service_is_a_failure(tmp_path: Path) -> None:
    ran = run(tmp_path, CI="true")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "4 failed, 1 skipped" in ran.stdout
    assert "left out" not in ran.stdout


def test_nothing_is_said_where_nothing_is_missing() -> None:
    assert left_out(["Skipped: not today", "no rules"]) == ""
