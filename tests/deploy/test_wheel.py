"""The wheel beside other people's code: projects and packages that have a `worker` or a `statestore` of their own."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services.commands import ROOT, Command, wait_until
from tests.services.machine import READY, scaled, without_settings

# One environment for all of them.
pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("wheel")]

OURS = "celery-agents"
OTHER = "acme-jobs"
LAUNCHERS = ("celery", "python -m celery")
# Their app, wherever it stands. Its task leaves word of whose code has run it.
APP = """
import pathlib, celery, statestore
here = pathlib.Path.cwd()
(here / "messages").mkdir(exist_ok=True)
app = celery.Celery("theirs", broker="filesystem://", set_as_current=True)
app.conf.update(
    broker_transport_options={name: str(here / "messages") for name in ("data_folder_in", "data_folder_out")},
    control_folder=str(here / "messages"),
    worker_hijack_root_logger=False,
)

@app.task(name="theirs.job")
def job():
    (here / "done").write_text(f"{__file__} {statestore.__file__}")
"""
STATESTORE = "MINE = True\n"
PROJECTS = {
    "a package": {"worker/__init__.py": "from worker.tasks import app\n", "worker/tasks.py": APP},
    "a module": {"worker.py": APP},
    "another app that imports it": {
        "worker/__init__.py": "",
        "worker/tasks.py": APP,
        "shop.py": "from worker.tasks import app\n",
    },
}
# Says of a distribution whether each of its files is there as it was installed.
WHOLE = """
import base64, hashlib, importlib.metadata, sys
files = importlib.metadata.distribution(sys.argv[1]).files
for file in files:
    if file.hash is not None:
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file
assert len(files) > 3
"""


class Installation:
    """An environment with what development has, but without this project. All share the folder of dependencies."""

    def __init__(self, folder: Path, dependencies: Path) -> None:
        self.python = folder / "bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (self.site / "dependencies.pth").write_text(f"{dependencies}\n")
        # What pip makes of Celery's entry point. Unlike `python -m celery`, it does not put the folder on the path.
        script = folder / "bin/celery"
        script.write_text(f"#!{self.python}\nimport sys\nfrom celery.__main__ import main\nsys.exit(main())\n")
        script.chmod(0o755)

    @property
    def site(self) -> Path:
        """Where packages are installed."""
        (found,) = self.python.parent.parent.glob("lib/python*/site-packages")
        return found

    @property
    def env(self) -> dict[str, str]:
        """For its programs: nothing leads to the checkout."""
        path = f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        kept = {name: value for name, value in without_settings(os.environ).items() if name != "PYTHONPATH"}
        return kept | {"PATH": path, "PYTHONUNBUFFERED": "1"}

    def pip(self, *arguments: str | Path) -> None:
        """Installs or uninstalls; asks no index."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, wheel: Path) -> None:
        self.pip("install", "--no-index", "--no-deps", "--no-compile", wheel)

    def uninstall(self, name: str) -> None:
        self.pip("uninstall", "--yes", name)

    def run(self, *arguments: str, cwd: Path) -> str:
        """What Python says to it."""
        done = subprocess.run(
            [self.python, *arguments], cwd=cwd, env=self.env, capture_output=True, text=True, timeout=scaled(60)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def celery(self, launcher: str, arguments: str, project: Path, **variables: str) -> Iterator[Command]:
        """A celery command, started in a project as its people start it."""
        log = project.parent / f"{project.name}.{launcher.replace(' ', '')}.log"
        with Command(f"{launcher} {arguments}", cwd=project, env=self.env | variables, log=log) as command:
            yield command


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def other_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's that ships a package `worker` and a module `statestore`."""
    name = f"{OTHER.replace('-', '_')}-1.0"
    files = {
        "worker/__init__.py": 'OWNER = "acme"\n',
        "worker/engine.py": 'ENGINE = "acme"\n',
        "statestore.py": 'OWNER = "acme"\n',
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {OTHER}\nVersion: 1.0\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}\n")
    files[f"{name}.dist-info/RECORD"] = "".join([*lines, f"{name}.dist-info/RECORD,,\n"])
    made = tmp_path_factory.mktemp("other") / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return made


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is installed here, but not this project."""
    folder = tmp_path_factory.mktemp("dependencies")
    for name in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_path(name)).iterdir():
            link = folder / entry.name
            if not entry.name.startswith(("celery_agents", "_celery_agents", "__editable__")) and not link.exists():
                link.symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, dependencies: Path, wheel: Path) -> Installation:
    """With our wheel merely installed."""
    made = Installation(tmp_path_factory.mktemp("environment"), dependencies)
    made.install(wheel)
    return made


def make_project(folder: Path, files: dict[str, str]) -> Path:
    """A project of theirs."""
    project = folder / "project"
    for name, text in ({"statestore.py": STATESTORE} | files).items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return project


def test_the_wheel_holds_two_names_and_whatever_they_read(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"celery_agents", "agent_statestore"}
    assert any(name.endswith(".lua") for name in names)
    assert {f"{package}/py.typed" for package in ("celery_agents", "agent_statestore")} <= set(names)


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("files", PROJECTS.values(), ids=PROJECTS)
def test_their_own_worker_runs_their_tasks(
    installation: Installation, tmp_path: Path, files: dict[str, str], launcher: str
) -> None:
    project = make_project(tmp_path, files)
    app = "shop" if "shop.py" in files else "worker"
    installation.run("-c", f"import {app}; {app}.app.send_task('theirs.job')", cwd=project)
    with installation.celery(launcher, f"-A {app} worker -P solo -l INFO", project) as theirs:
        wait_until(f"the job is done: {theirs.output}", (project / "done").exists)
        wait_until("all is written", lambda: (project / "done").read_text() != "")
        assert "celery_agents" not in theirs.output, "our app has started"
    module = project / ("worker.py" if "worker.py" in files else "worker/tasks.py")
    assert (project / "done").read_text() == f"{module} {project / 'statestore.py'}"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ours_is_reachable_among_theirs_and_imports_nothing_of_theirs(
    installation: Installation, tmp_path: Path, launcher: str
) -> None:
    broken = "raise RuntimeError('it is not ours to import')\n"
    project = make_project(tmp_path, {"worker.py": broken, "statestore.py": broken})
    home = {"AGENTS_HOME": str(tmp_path / "home"), "AGENTS_IMPORTS": "celery_agents.demo.environment_audit.agent"}
    with installation.celery(launcher, "-A celery_agents worker -P threads -c 1 -l INFO", project, **home) as ours:
        ours.wait_for(READY)
        said = subprocess.run(
            [*launcher.split(), "-A", "celery_agents", "agents", "list", "--json"],
            cwd=project,
            env=installation.env | home,
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=False,
        )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["items"] == []


def test_a_wheel_that_ships_worker_and_ours_leave_each_other_whole(
    dependencies: Path, wheel: Path, other_wheel: Path, tmp_path: Path
) -> None:
    made = Installation(tmp_path / "environment", dependencies)
    show = "import celery_agents, agent_statestore, worker.engine, statestore; print(worker.OWNER, statestore.OWNER)"

    def check(*names: str) -> None:
        for name in names:
            made.run("-c", WHOLE, name, cwd=tmp_path)

    made.install(other_wheel)
    made.install(wheel)
    check(OURS, OTHER)
    assert made.run("-c", show, cwd=tmp_path) == "acme acme\n"
    made.uninstall(OTHER)
    check(OURS)
    made.install(other_wheel)
    check(OURS, OTHER)
    made.uninstall(OURS)
    check(OTHER)
    assert not [*made.site.glob("celery_agents*"), *made.site.glob("agent_statestore*")]
    assert made.run("-c", "import worker; print(worker.OWNER)", cwd=tmp_path) == "acme\n"
