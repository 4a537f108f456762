"""`open_store`: schemes, drivers, entry points, passwords."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_statestore import MemoryStore, Store, open_store, opening
from agent_statestore.drivers.masking import masked
from agent_statestore.errors import UnknownScheme


def run_python(program: str, *folders: Path) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = {[str(folder) for folder in folders]!r}\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_any_setting_it_is_the_store_in_memory() -> None:
    store = open_store()
    assert isinstance(store, MemoryStore)
    assert store.url == "memory://"


def test_the_limit_of_a_value_is_passed_on(tmp_path: Path) -> None:
    for url in ("memory://", f"sqlite:///{tmp_path}/f.db", "redis://127.0.0.1:1/0"):
        with open_store(url, max_value_bytes=7) as store:
            assert store.max_value_bytes == 7


@pytest.mark.parametrize("url", ["mongodb://host/db", "mongodb+srv://host", "memory", "", "://", "redis:host", "/a/b"])
def test_an_unknown_scheme_names_the_installed_ones(url: str) -> None:
    with pytest.raises(UnknownScheme) as refused:
        open_store(url)
    assert {"memory", "sqlite", "postgresql", "redis", "rediss", "valkey"} <= set(refused.value.known)
    assert "memory" in str(refused.value)


def test_opening_makes_no_connection() -> None:
    for url in ("redis://127.0.0.1:1/0", "postgresql+psycopg://u@127.0.0.1:1/db"):
        open_store(url).close()


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("redis://h", "redis", "redis"),
        ("rediss://h", "redis", "redis"),
        ("valkey://h", "redis", "redis"),
        ("postgresql://h/d", "psycopg", "postgresql"),
        ("postgresql+psycopg://h/d", "psycopg", "postgresql"),
        ("mysql://h/d", "pymysql", "mysql"),
        ("mariadb+pymysql://h/d", "pymysql", "mysql"),
    ],
)
def test_a_missing_driver_names_the_extra_to_install(url: str, package: str, extra: str) -> None:
    said = run_python(f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from agent_statestore import MissingDriver, open_store
try:
    open_store({url!r})
except MissingDriver as error:
    print(error.package, error.extra, error, sep="|")
""")
    assert said.split("|")[:2] == [package, extra]
    assert f"pip install 'celery-agents[{extra}]'" in said


def test_a_fault_inside_a_backend_is_not_mistaken_for_a_missing_driver(tmp_path: Path) -> None:
    add_backend(tmp_path, "broken", "import no_such_module_anywhere")
    said = run_python(
        """
from agent_statestore import MissingDriver, open_store
try:
    open_store("broken://h")
except MissingDriver:
    print("missing driver")
except ModuleNotFoundError as error:
    print(error.name)
""",
        tmp_path,
    )
    assert said == "no_such_module_anywhere"


def test_neither_memory_nor_the_package_itself_needs_a_driver() -> None:
    said = run_python("""
import sys
import agent_statestore
agent_statestore.open_store("memory://").create_context("agent")
print(sorted({"redis", "psycopg", "sqlalchemy", "celery", "kombu", "pytest"} & sys.modules.keys()))
""")
    assert said == "[]"


def test_another_package_adds_a_scheme(tmp_path: Path) -> None:
    add_backend(
        tmp_path,
        "mine",
        "from agent_statestore import MemoryStore\n"
        "def opener(url, *, max_value_bytes, clock):\n"
        "    store = MemoryStore(clock=clock, max_value_bytes=max_value_bytes)\n"
        "    store.url = url\n"
        "    return store\n",
    )
    said = run_python(
        """
from agent_statestore import open_store
store = open_store("mine+fast://host/path", max_value_bytes=9)
print(store.url, store.max_value_bytes)
""",
        tmp_path,
    )
    assert said == "mine+fast://host/path 9"


def test_the_installed_packages_are_read_once_unless_a_scheme_is_not_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    look = opening.entry_points
    monkeypatch.setattr(opening, "entry_points", lambda *, group: looks.append(group) or look(group=group))
    opening._backends.cache_clear()
    for _ in range(3):
        open_store("memory://").close()
    assert len(looks) == 1
    add_backend(tmp_path, "late", "from agent_statestore.memory import open_memory as opener")
    monkeypatch.syspath_prepend(tmp_path)
    open_store("late://").close()
    assert len(looks) == 2
    opening._backends.cache_clear()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("redis://user:secret@h:1/0?a=b", "redis://user:***@h:1/0?a=b"),
        ("postgresql+psycopg://u:se%40cret@h/d", "postgresql+psycopg://u:***@h/d"),
        ("redis://h/0", "redis://h/0"),
        ("sqlite:///f.db", "sqlite:///f.db"),
        ("memory://", "memory://"),
    ],
)
def test_a_password_is_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url", ["redis://user:secret@127.0.0.1:1/0", "postgresql+psycopg://u:secret@127.0.0.1:1/d"], ids=["redis", "sql"]
)
def test_a_store_shows_no_password(url: str) -> None:
    with open_store(url) as store:
        assert isinstance(store, Store)
        assert "secret" not in store.url
        assert "secret" not in repr(store)


def add_backend(folder: Path, scheme: str, module: str) -> None:
    """Installs a distribution with one backend into the folder."""
    (folder / f"backend_{scheme}.py").write_text(module)
    info = folder / f"backend_{scheme}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: backend-{scheme}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[agent_statestore.backends]\n{scheme} = backend_{scheme}:opener\n")
