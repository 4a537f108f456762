"""tools/install.py and the targets that call it: what they install, and that they never fall silent."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.services.commands import ROOT
from tools import install

AT_MOST_PACKAGES = 50
AT_MOST_MB = 200


def runtime() -> set[str]:
    """The distributions that celery-agents needs at run time, with those that they need."""
    found: set[str] = set()
    wanted = ["celery-agents"]
    while wanted:
        name = wanted.pop()
        if name.lower() in found:
            continue
        found.add(name.lower())
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def megabytes(name: str) -> float:
    """What a distribution takes on the disk."""
    files = [Path(str(file.locate())) for file in distribution(name).files or []]
    return sum(file.stat().st_size for file in files if file.exists()) / 2**20


def test_what_runs_agents_is_small() -> None:
    names = runtime()
    assert len(names) <= AT_MOST_PACKAGES, sorted(names)
    assert sum(map(megabytes, [*names, "pip"])) < AT_MOST_MB
    said = re.search(r"about (\d+) packages", install.RUNTIME)
    assert said is not None
    assert abs(int(said[1]) - len(names)) <= 5, f"tools/install.py says {said[0]}; they are {len(names)}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` reads."""
    for name in ("Makefile", "pyproject.toml", "tools/install_node.py", "tests/http_clients/package.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def would_run(checkout: Path, target: str) -> list[str]:
    """The commands of `make TARGET`."""
    return subprocess.run(
        ["make", "-n", "--no-print-directory", target, f"PYTHON={sys.executable}"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def installs(checkout: Path, target: str) -> list[str]:
    """Those of them that install something."""
    return [line.partition("tools/")[2] for line in would_run(checkout, target) if "tools/install.py" in line]


def test_the_demo_installs_no_tools_and_the_tests_complete_it(checkout: Path) -> None:
    assert installs(checkout, "demo") == ["install.py .venv"]
    assert would_run(checkout, "demo")[-1] == ".venv/bin/python -m celery_agents.demo"
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.runtime").touch()  # as `make demo` leaves it
    assert installs(checkout, "demo") == []
    assert "install.py .venv --dev" in installs(checkout, "test")
    assert any(line.startswith("touch .venv/.installed .venv/.runtime") for line in would_run(checkout, "test"))


def test_the_benchmark_has_an_environment_of_its_own(checkout: Path) -> None:
    assert installs(checkout, "bench") == ["install.py .venv-bench --bench"]
    assert would_run(checkout, "bench")[-1].startswith(".venv-bench/bin/python -m benchmarks")
    assert "install.py .venv --dev" in installs(checkout, "test"), "it takes no part in the tests"
    heavy = {name for name in install.lowest(install.requirements()) if name in {"absurd-sdk", "absurdctl", "dbos"}}
    assert len(heavy) == 3
    assert not heavy & {Requirement(line).name for line in install.extra("dev")}


def test_frameworks_have_an_environment_of_their_own(checkout: Path) -> None:
    for target in ("test-integrations", "bench-frameworks"):
        assert installs(checkout, target) == ["install.py .venv-frameworks --frameworks"]
    assert would_run(checkout, "test-integrations")[-1].endswith('tests/integrations -m "not full and not chaos"')
    assert sorted(installs(checkout, "test")) == ["install.py .venv --dev", "install.py .venv-frameworks --frameworks"]
    heavy = {Requirement(line).name for line in install.extra("llm")}
    assert heavy == {"pydantic-ai-slim"}
    assert not heavy & {Requirement(line).name for line in install.extra("dev")}


def test_the_demo_with_a_model_adds_to_what_runs_agents(checkout: Path) -> None:
    assert installs(checkout, "demo-llm") == ["install.py .venv", "install.py .venv --llm"]
    assert would_run(checkout, "demo-llm")[-1] == ".venv/bin/python -m examples.support_desk"


def test_nothing_is_installed_twice(checkout: Path) -> None:
    for folder, names in {".venv": (".installed", ".runtime"), ".venv-frameworks": (".installed",)}.items():
        (checkout / folder).mkdir()
        for name in names:
            (checkout / folder / name).touch()
    assert [*installs(checkout, "demo"), *installs(checkout, "test"), *installs(checkout, "check")] == []
    later = time.time() + 60
    os.utime(checkout / "pyproject.toml", (later, later))
    assert installs(checkout, "demo") == ["install.py .venv"]


def run_python(code: str) -> None:
    install.run([sys.executable, "-c", code], "still at it", time.monotonic())


def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(install, "SILENCE_SECONDS", 0.05)
    run_python("import time; print('Collecting a'); print('  Downloading a'); time.sleep(0.5); print('Installing a')")
    lines = [line.partition(" s  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines.count("... still at it") >= 3
    assert [line for line in lines if not line.startswith("...")] == ["Collecting a", "Installing a"]
    assert lines.index("Collecting a") < len(lines) - lines[::-1].index("... still at it") < len(lines)


def test_lines_that_are_not_shown_break_no_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "SILENCE_SECONDS", 0.2)
    run_python("import time\nfor n in range(20):\n  print('  a detail', flush=True)\n  time.sleep(0.05)")
    lines = [line.partition(" s  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) >= 3
    assert set(lines) == {"... still at it"}


def test_a_failure_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(install.Failed) as raised:
        run_python("import sys; print('  what pip hid'); sys.exit('ERROR: no network')")
    assert raised.value.code == 1
    assert "  what pip hid\nERROR: no network\nfailed: " in capsys.readouterr().out


def test_it_says_what_it_does_before_it_does_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pip").touch()
    python = tmp_path / "bin/python"
    python.write_text("#!/bin/sh\necho Collecting $@\n")
    python.chmod(0o755)
    said = subprocess.run(
        [sys.executable, ROOT / "tools/install.py", tmp_path], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[0] == f"Installing into {tmp_path}: {install.RUNTIME}."
    assert said[1].endswith(f"--editable {ROOT}")


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    """An environment whose Python only says what it is asked, and fails as uv where there is a file `no-uv`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pip").touch()
    python = tmp_path / "bin/python"
    python.write_text(f"""#!/bin/sh
echo Collecting $@
if [ "$2" = uv ] && [ -e {tmp_path}/no-uv ]; then exit 2; fi
""")
    python.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("has_uv", [True, False])
def test_development_is_installed_by_uv_and_without_it_by_pip(scripted: Path, has_uv: bool) -> None:
    if not has_uv:
        (scripted / "no-uv").touch()
    said = subprocess.run(
        [sys.executable, ROOT / "tools/install.py", scripted, "--dev"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[0] == f"Installing into {scripted}: {install.DEVELOPMENT}."
    assert said[1].endswith("uv"), "pip brings uv"
    assert "-m uv pip install" in said[2]
    rest = [line for line in said[3:] if " s  Collecting -m pip" in line]
    assert len(rest) == (0 if has_uv else 1)
    assert any(line.startswith("uv cannot install here") for line in said) is not has_uv


def test_every_dependency_has_a_lower_bound_that_can_be_pinned() -> None:
    asked = {line: Requirement(line) for line in install.requirements()}
    pins = install.lowest(asked)
    assert {each.name for each in asked.values()} - set(pins) == {"celery-agents"}
    wrong = [line for line, each in asked.items() if each.name in pins and pins[each.name] not in each.specifier]
    assert not wrong, "two bounds of one package, or one that its own requirement excludes"


def test_the_lowest_are_installed_into_a_new_environment_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(install, "run", lambda command, _doing, _started: ran.append(list(command)))
    install.install_lowest(tmp_path, 0.0)
    constraints = (tmp_path / "lowest.txt").read_text().splitlines()
    pins = install.lowest(install.requirements())
    exact = [command for command in ran if "--no-deps" in command]
    assert "--constraint" in ran[1]
    assert sorted([*constraints, *exact[0][-len(install.HELD_UP) :]]) == sorted(f"{n}=={v}" for n, v in pins.items())


def test_the_tests_of_the_lowest_versions_are_there() -> None:
    named = re.findall(r"tests/[\w/]+\.py(?:::\w+)?", (ROOT / "Makefile").read_text())
    assert len(named) >= 4
    for each in named:
        file, _, function = each.partition("::")
        assert (ROOT / file).is_file(), each
        assert f"def {function}" in (ROOT / file).read_text(), each


def test_the_demo_in_the_browser_adds_little(checkout: Path) -> None:
    assert installs(checkout, "demo-web") == ["install.py .venv", "install.py .venv --web"]
    assert would_run(checkout, "demo-web")[-1].rstrip() == ".venv/bin/python -m examples.web_chat"
