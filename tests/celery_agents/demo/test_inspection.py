"""The audit of distributions whose faults are known."""

from pathlib import Path

import pytest

from celery_agents.demo.environment_audit.inspection import find_dependents, find_installed, inspect_distribution, total
from tests.celery_agents.demo.made_up import make_distribution


def test_an_intact_distribution(tmp_path: Path) -> None:
    make_distribution(tmp_path, "good", files={"good.py": "x = 1\n"}, headers=["License-Expression: MIT"])
    finding = inspect_distribution("good", ["other"], [str(tmp_path)])
    assert finding.is_intact
    assert (finding.version, finding.verified, finding.integrity_in_words) == ("1.0", 2, "intact")
    assert finding.licence.evidence == "License-Expression: MIT"
    assert finding.required_by == ["other"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert finding.size_bytes == sum(path.stat().st_size for path in files)


def test_modified_missing_and_unhashed_files_are_told_apart(tmp_path: Path) -> None:
    make_distribution(
        tmp_path,
        "bad",
        files={"bad/a.py": "a = 1\n", "bad/b.py": "b = 1\n", "bad/c.py": "c = 1\n", "bad/with, comma.txt": "d\n"},
        unhashed=["bad/c.py"],
    )
    (tmp_path / "bad/a.py").write_text("a = 2\n")
    (tmp_path / "bad/b.py").unlink()
    finding = inspect_distribution("bad", search_path=[str(tmp_path)])
    assert (finding.modified, finding.missing, finding.unhashed) == (["bad/a.py"], ["bad/b.py"], ["bad/c.py"])
    assert finding.verified == 2  # the file with a comma in its name, and METADATA
    assert finding.integrity_in_words == "1 modified, 1 missing, 1 without hash"
    assert total([finding]).not_intact == 1


def test_bytecode_is_no_part_of_the_audit(tmp_path: Path) -> None:
    info = make_distribution(tmp_path, "fast", files={"fast.py": ""})
    with (info / "RECORD").open("a") as record:
        record.write("__pycache__/fast.cpython-311.pyc,,\n")
    assert inspect_distribution("fast", search_path=[str(tmp_path)]).is_intact


@pytest.mark.parametrize(
    "hash_in_record", ["md5=1B2M2Y8AsgTpgAmY7PhCfg", "sha1=2jmj7l5rSw0yVb_vlWAYkK_YBwk", "sha256="]
)
def test_a_hash_that_proves_nothing_counts_as_none(tmp_path: Path, hash_in_record: str) -> None:
    info = make_distribution(tmp_path, "weak")
    (tmp_path / "weak.py").touch()
    with (info / "RECORD").open("a") as record:
        record.write(f"weak.py,{hash_in_record},0\n")
    assert inspect_distribution("weak", search_path=[str(tmp_path)]).unhashed == ["weak.py"]


def test_an_editable_install(tmp_path: Path) -> None:
    make_distribution(tmp_path, "mine", files={"_mine.pth": "/src\n"}, unhashed=["_mine.pth"], editable=True)
    finding = inspect_distribution("mine", search_path=[str(tmp_path)])
    assert finding.is_editable
    assert finding.unhashed == ["_mine.pth"]


def test_without_a_record_nothing_is_verified(tmp_path: Path) -> None:
    make_distribution(tmp_path, "plain", files={"plain.py": ""}, with_record=False)
    finding = inspect_distribution("plain", search_path=[str(tmp_path)])
    assert not finding.is_intact
    assert (finding.verified, finding.integrity_in_words) == (0, "no RECORD to verify it by")


def test_names_beyond_ascii(tmp_path: Path) -> None:
    make_distribution(tmp_path, "Grüße.Welt", files={"grüße/日本.py": "ß = 1\n"})
    assert find_installed([str(tmp_path)]).names == ["grüße-welt"]
    finding = inspect_distribution("grüße-welt", search_path=[str(tmp_path)])
    assert finding.is_intact
    assert finding.verified == 2


def test_a_folder_named_unlike_its_metadata_is_found(tmp_path: Path) -> None:
    make_distribution(tmp_path, "inside").rename(tmp_path / "outside-1.0.dist-info")
    assert inspect_distribution("inside", search_path=[str(tmp_path)]).name == "inside"


def test_remains_of_a_broken_installation_are_counted(tmp_path: Path) -> None:
    make_distribution(tmp_path, "good")
    (tmp_path / "broken-1.0.dist-info").mkdir()
    installed = find_installed([str(tmp_path)])
    assert (installed.names, installed.unreadable) == (["good"], 1)


def test_the_first_copy_on_the_path_counts(tmp_path: Path) -> None:
    make_distribution(tmp_path / "first", "twice", headers=["License-Expression: MIT"])
    make_distribution(tmp_path / "second", "twice", headers=["License-Expression: GPL-3.0-only"])
    path = [str(tmp_path / "first"), str(tmp_path / "second")]
    assert find_installed(path).names == ["twice"]
    assert inspect_distribution("twice", search_path=path).licence.evidence == "License-Expression: MIT"


def test_what_was_removed_meanwhile_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="gone is not installed any more"):
        inspect_distribution("gone", search_path=[str(tmp_path)])


def test_dependents_by_marker_and_extra(tmp_path: Path) -> None:
    make_distribution(
        tmp_path,
        "App",
        headers=[
            "Requires-Dist: always (>=1)",
            "Requires-Dist: elsewhere; sys_platform == 'no such platform'",
            "Requires-Dist: sometimes; extra == 'more'",
            "Requires-Dist: sometimes; extra == 'all'",
            "Requires-Dist: always; extra == 'more'",
            "Requires-Dist: app[more]; extra == 'all'",
            "Requires-Dist: ??? not a requirement",
            "Provides-Extra: more",
            "Provides-Extra: all",
        ],
    )
    assert find_dependents([str(tmp_path)]) == {"always": ["app"], "app": [], "sometimes": ["app [all, more]"]}
