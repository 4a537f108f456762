"""What is installed in a Python environment, and whether its files are those that were published."""

import base64
import csv
import hashlib
import json
import platform
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from celery_agents.demo.environment_audit.licences import Licence, classify

# "Recording installed projects" (packaging.python.org) allows no weaker hash than sha256.
_HASHES: Final = ("sha256", "sha384", "sha512")
# RECORD cannot hold its own hash, nor that of its signatures.
_NEVER_HASHED: Final = ("RECORD", "RECORD.jws", "RECORD.p7s")
_MAX_NAME: Final = 100
# The extra that stands for none.
_PLAIN: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The distributions of an environment: normalised names in order; `unreadable` counts those without one."""

    python: str
    names: list[str]
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one distribution turned out to be.

    Bytecode is left out of all counts: Python writes it anew at any time. `modified`, `missing` and `unhashed` hold
    paths as RECORD has them; `missing` are also those that cannot be read. `has_record` is False where no RECORD says
    what belongs to the distribution, so that nothing could be verified.
    """

    name: str
    version: str
    licence: Licence
    has_record: bool
    is_editable: bool
    verified: int
    modified: list[str]
    missing: list[str]
    unhashed: list[str]
    size_bytes: int
    commands: list[str]
    required_by: list[str]

    @property
    def is_intact(self) -> bool:
        """Return whether every file could be compared with its hash, and matched it."""
        return self.has_record and not (self.modified or self.missing or self.unhashed)

    @property
    def integrity_in_words(self) -> str:
        """Return one short phrase for people."""
        if not self.has_record:
            return "no RECORD to verify it by"
        faults = (("modified", self.modified), ("missing", self.missing), ("without hash", self.unhashed))
        return ", ".join(f"{len(paths)} {word}" for word, paths in faults if paths) or "intact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over findings; `not_intact` counts distributions."""

    distributions: int
    files: int
    size_bytes: int
    not_intact: int

    @property
    def in_words(self) -> str:
        """Return the sums as part of a sentence."""
        amount = f"{self.distributions} distributions, {self.files} files, {self.size_bytes / 2**20:.1f} MiB"
        return f"{amount}; {f'not intact: {self.not_intact}' if self.not_intact else 'all intact'}"

    def as_json(self) -> dict[str, Any]:
        """Return the sums as a JSON object."""
        return asdict(self)


def total(findings: Sequence[Finding]) -> Totals:
    """Return the sums."""
    return Totals(
        distributions=len(findings),
        files=sum(finding.verified + len(finding.modified) + len(finding.unhashed) for finding in findings),
        size_bytes=sum(finding.size_bytes for finding in findings),
        not_intact=sum(not finding.is_intact for finding in findings),
    )


def find_installed(search_path: Sequence[str] | None = None) -> Installed:
    """Return what can be imported from `search_path` (default: `sys.path`). The first of several copies counts."""
    return Installed(
        python=platform.python_version(),
        names=sorted(_first_copies(search_path)),
        unreadable=sum(_name_of(distribution) is None for distribution in _distributions(search_path)),
    )


def find_dependents(search_path: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Return who requires each distribution: "celery", or "celery [redis, sqs]" if only those extras of it do."""
    askers: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, distribution in _first_copies(search_path).items():
        extras = distribution.metadata.get_all("Provides-Extra") or []
        for line in distribution.requires or []:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            for extra in _asked_by(requirement, extras):
                askers[str(canonicalize_name(requirement.name))][name].add(extra)
    return {
        required: [_asker(name, by_name[name]) for name in sorted(by_name) if name != required]
        for required, by_name in sorted(askers.items())
    }


def inspect_distribution(
    name: str, required_by: Sequence[str] = (), search_path: Sequence[str] | None = None
) -> Finding:
    """Verify one distribution, given by its normalised name. Raise `LookupError` if it is no longer there."""
    distribution = _find(name, search_path)
    metadata = distribution.metadata
    record = distribution.read_text("RECORD")
    verified, size_bytes = 0, 0
    modified: list[str] = []
    missing: list[str] = []
    unhashed: list[str] = []
    for path, expected in _recorded_files(record or ""):
        file = Path(str(distribution.locate_file(path)))
        try:
            matches = _matches(file, expected)
            size_bytes += file.stat().st_size
        except OSError:
            missing.append(path)
            continue
        if matches is None:
            if Path(path).name not in _NEVER_HASHED:
                unhashed.append(path)
        elif matches:
            verified += 1
        else:
            modified.append(path)
    return Finding(
        name=name,
        version=_header(distribution, "Version") or "?",
        licence=classify(
            _header(distribution, "License-Expression"),
            metadata.get_all("Classifier") or [],
            _header(distribution, "License"),
        ),
        has_record=record is not None,
        is_editable=_is_editable(distribution),
        verified=verified,
        modified=sorted(modified),
        missing=sorted(missing),
        unhashed=sorted(unhashed),
        size_bytes=size_bytes,
        commands=sorted({entry.name for entry in distribution.entry_points if entry.group == "console_scripts"}),
        required_by=list(required_by),
    )


def _distributions(search_path: Sequence[str] | None, name: str | None = None) -> Iterable[Distribution]:
    return distributions(name=name, path=sys.path if search_path is None else list(search_path))


def _first_copies(search_path: Sequence[str] | None) -> dict[str, Distribution]:
    copies: dict[str, Distribution] = {}
    for distribution in _distributions(search_path):
        if (name := _name_of(distribution)) is not None:
            copies.setdefault(name, distribution)
    return copies


def _find(name: str, search_path: Sequence[str] | None) -> Distribution:
    """Find it by the folder's name, which is quick, else by the name in the metadata, which may differ."""
    for distribution in _distributions(search_path, name):
        if _name_of(distribution) == name:
            return distribution
    for distribution in _distributions(search_path):
        if _name_of(distribution) == name:
            return distribution
    raise LookupError(f"{name} is not installed any more")


def _name_of(distribution: Distribution) -> str | None:
    """Return the normalised name; None for remains of a broken installation and for names that nobody could type."""
    name = _header(distribution, "Name")
    if not name or "#" in name or len(name) > _MAX_NAME or not name.isprintable():
        return None
    return str(canonicalize_name(name))


def _header(distribution: Distribution, key: str) -> str | None:
    if distribution.read_text("METADATA") is None and distribution.read_text("PKG-INFO") is None:
        return None
    values = distribution.metadata.get_all(key)
    return values[0] if values else None


def _recorded_files(record: str) -> Iterator[tuple[str, str]]:
    """Yield path and hash ("sha256=...", or empty) of each file in a RECORD, except bytecode.

    Not `Distribution.files`: from Python 3.12 on it leaves out what is missing on the disk.
    """
    for row in csv.reader(record.splitlines()):
        if row and row[0] and not row[0].endswith(".pyc"):
            yield row[0], row[1] if len(row) > 1 else ""


def _matches(file: Path, expected: str) -> bool | None:
    """Return whether the file has the expected hash; None if there is no hash to trust. Raise `OSError`."""
    algorithm, _, digest = expected.partition("=")
    if not file.is_file():
        raise FileNotFoundError(file)
    if algorithm not in _HASHES or not digest:
        return None
    with file.open("rb") as opened:
        actual = hashlib.file_digest(opened, algorithm).digest()
    return base64.urlsafe_b64encode(actual).rstrip(b"=").decode() == digest.rstrip("=")


def _is_editable(distribution: Distribution) -> bool:
    origin = distribution.read_text("direct_url.json")
    try:
        return bool(json.loads(origin or "{}").get("dir_info", {}).get("editable", False))
    except (ValueError, AttributeError):
        return False


def _asked_by(requirement: Requirement, extras: Sequence[str]) -> list[str]:
    """Return the extras that bring the requirement in on this platform; the empty one if it holds without any."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": _PLAIN}):
        return [_PLAIN]
    return [extra for extra in extras if requirement.marker.evaluate({"extra": extra})]


def _asker(name: str, extras: set[str]) -> str:
    return name if _PLAIN in extras else f"{name} [{', '.join(sorted(extras))}]"
