"""No process compiles what another one has compiled."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.services import bytecode
from tests.services.bytecode import PREFIX, TOLD_TO_WRITE_NONE

STARTED = (
    "from subprocess import run; from sys import executable; run([executable, '-c', 'import imported'], check=True)"
)
KEEPING = f"from tests.services.bytecode import keep_bytecode; keep_bytecode(); {STARTED}"


def compiled(folder: Path, program: str) -> list[str]:
    """What is left of a module that is imported by a process which this program starts."""
    sources = folder / "sources"
    sources.mkdir()
    (sources / "imported.py").write_text("")
    path = os.pathsep.join((str(Path(__file__).parents[2]), str(sources)))
    env = os.environ | {TOLD_TO_WRITE_NONE: "1", PREFIX: str(folder / "bytecode"), "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", program], env=env, cwd=folder, check=True)
    return [str(path.relative_to(folder).parts[0]) for path in folder.rglob("imported*.pyc")]


def test_bytecode_is_kept_beside_the_environment_where_python_is_told_to_write_none(tmp_path: Path) -> None:
    assert compiled(tmp_path, KEEPING) == ["bytecode"]


def test_that_of_temporary_modules_goes_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "FOLDER", tmp_path)
    temporary, kept = tmp_path / tempfile.gettempdir().lstrip("/") / "imported.pyc", tmp_path / "work" / "kept.pyc"
    for file in (temporary, kept):
        file.parent.mkdir(parents=True)
        file.touch()
    bytecode.forget_temporary_bytecode()
    assert (temporary.exists(), kept.exists()) == (False, True)


def test_it_would_not_be_otherwise(tmp_path: Path) -> None:
    assert compiled(tmp_path, STARTED) == []
