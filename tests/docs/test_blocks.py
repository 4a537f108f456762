"""Every block of Python in the README and the docs runs alone, as a reader pastes it."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent_statestore.testing import DamageConformance
from tests.agent_statestore.test_conformance import Damaged
from tests.agent_statestore.test_conformance import TestMemoryStore as OurOwnOfMemory
from tests.docs.pages import FRAMEWORK_PAGES, PAGES, ROOT, blocks
from tests.services.machine import scaled

# A client's block waits for a worker: `test_readme` gives it one.
NEEDS_A_WORKER = "from research import research"


RUN_HERE = [page for page in PAGES if page not in FRAMEWORK_PAGES]


def alone(texts: list[str], *dear: str) -> list[int | str]:
    """What came of each block: the number of tests in it, which have passed, or a traceback.

    `dear` are modules that are imported once for all of them.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AGENTS_")}
    ran = subprocess.run(
        [sys.executable, "-W", "error", Path(__file__).with_name("run_alone.py"), *dear],
        input=json.dumps(texts),
        env=environ,
        capture_output=True,
        text=True,
        timeout=scaled(150),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    results: list[int | str] = json.loads(ran.stdout.splitlines()[-1])
    return results


def runnable(page: Path) -> list[str]:
    """The blocks of a page that need no worker."""
    return [text for text in blocks(page) if NEEDS_A_WORKER not in text]


@pytest.fixture(scope="module")
def results() -> dict[Path, list[int | str]]:
    """What came of each block of each page. One process imports what is dear, for all of them."""
    came = iter(alone([text for page in RUN_HERE for text in runnable(page)]))
    return {page: list(itertools.islice(came, len(runnable(page)))) for page in RUN_HERE}


@pytest.mark.xdist_group("blocks")
@pytest.mark.parametrize("page", [page for page in RUN_HERE if blocks(page)], ids=lambda page: page.name)
def test_every_block_runs_alone(results: dict[Path, list[int | str]], page: Path) -> None:
    texts = runnable(page)
    failed = [f"{text}\n{result}" for text, result in zip(texts, results[page], strict=True) if isinstance(result, str)]
    assert not failed, "\n".join(failed)
    assert results[page] == [len(re.findall(r"^def test_", text, flags=re.MULTILINE)) for text in texts]


def test_a_block_that_needs_its_neighbour_is_found() -> None:
    first, second, third = alone(["import os\nname = 1", "print(name, os)", "import json\n\ndef test_it():\n    1 / 0"])
    assert first == 0
    assert isinstance(second, str)
    assert "NameError: name 'name' is not defined" in second
    assert isinstance(third, str)
    assert "ZeroDivisionError" in third


def test_every_block_defines_or_imports_what_it_uses(tmp_path: Path) -> None:
    """Also those that cannot be run here, for they need a web framework or a worker."""
    for page in PAGES:
        for kind in ("python", "python no-run"):
            for number, text in enumerate(blocks(page, kind)):
                (tmp_path / f"{page.stem}_{kind.replace(' ', '_')}_{number}.py").write_text(text)
    assert len(list(tmp_path.iterdir())) >= 44
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", "--select", "F,E9", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_the_store_of_the_docs_passes_the_suite(tmp_path: Path) -> None:
    (text,) = [block for block in blocks(ROOT / "docs/stores.md") if "class TestMyStore" in block]
    made: dict[str, type] = {}
    exec(compile(text, "a block of the docs", "exec"), made)
    # It consists of the same parts as our own test of that store, which runs whole elsewhere. Here run those tests that
    # ask whether the parts are the right ones for the store, and those that use the fixtures. How the data of a store
    # can be damaged, which the page explains, only the tests of this very store know.
    assert set(made["TestMyStore"].__mro__[1:]) == set(OurOwnOfMemory.__mro__[1:]) - {DamageConformance, Damaged}
    (tmp_path / "test_my_store.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-k", "suite or neighbour", "test_my_store.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert int(re.findall(r"(\d+) passed", ran.stdout)[0]) >= 6
