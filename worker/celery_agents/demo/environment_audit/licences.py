"""Which kind of licence a distribution is under, and what in its metadata says so.

A rough sorting for an overview, not legal advice: what is not in the tables below is unknown.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a licence asks of those who pass the software on."""

    PERMISSIVE = "permissive"
    WEAK_COPYLEFT = "weak copyleft"
    STRONG_COPYLEFT = "strong copyleft"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """The kind, and the piece of metadata that it was taken from."""

    kind: Kind
    evidence: str


_PERMISSIVE: Final = """
    0BSD Apache-1.1 Apache-2.0 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 CNRI-Python HPND ISC
    MIT MIT-0 MIT-CMU MulanPSL-2.0 NCSA PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 Unlicense UPL-1.0 WTFPL X11 Zlib
    ZPL-2.1
"""
_WEAK: Final = "CDDL-1.0 CDDL-1.1 EPL-1.0 EPL-2.0 LGPL-2.0 LGPL-2.1 LGPL-3.0 MPL-1.1 MPL-2.0"
_STRONG: Final = "AGPL-3.0 GPL-2.0 GPL-3.0 OSL-3.0 SSPL-1.0"

_BY_SPDX_ID: Final = {
    identifier.lower(): kind
    for kind, listed in ((Kind.PERMISSIVE, _PERMISSIVE), (Kind.WEAK_COPYLEFT, _WEAK), (Kind.STRONG_COPYLEFT, _STRONG))
    for identifier in listed.split()
}

# What people write into classifiers and into the License field. "Lesser GPL" also reads as a GPL: the order counts.
_WORDS: Final = (
    (Kind.STRONG_COPYLEFT, ("AGPL", "Affero")),
    (Kind.WEAK_COPYLEFT, ("LGPL", "Lesser General Public", "Library or Lesser", "Library General Public")),
    (Kind.STRONG_COPYLEFT, ("GPL", "GNU General Public")),
    (Kind.WEAK_COPYLEFT, ("MPL", "Mozilla Public", "EPL", "Eclipse Public", "CDDL")),
    (Kind.PERMISSIVE, ("MIT", "BSD", "Apache", "ISC", "ISCL", "PSF", "PSFL", "Python Software Foundation")),
    (Kind.PERMISSIVE, ("Unlicense", "zlib", "CC0", "Public Domain", "Zope Public", "Historical Permission")),
)
# A version may follow without a space, as in "GPLv3".
_BY_WORDS: Final = tuple(
    (re.compile(rf"\b(?:{'|'.join(words)})(?:v?\d[\w.+]*)?\b", re.IGNORECASE), kind) for kind, words in _WORDS
)

# Both licences hold at once (AND): the strictest counts. One may be chosen (OR): the mildest does. A part that is
# unknown spoils an AND unless another part is strict already, and can be passed over in an OR.
_STRICTNESS_ALL: Final = (Kind.PERMISSIVE, Kind.WEAK_COPYLEFT, Kind.UNKNOWN, Kind.STRONG_COPYLEFT)
_STRICTNESS_ANY: Final = (Kind.PERMISSIVE, Kind.WEAK_COPYLEFT, Kind.STRONG_COPYLEFT, Kind.UNKNOWN)

_MAX_EVIDENCE: Final = 60


def classify(expression: str | None, classifiers: Iterable[str], field: str | None) -> Licence:
    """Return the licence by the core metadata's License-Expression, else its classifiers, else its License field.

    The first of the three that says something known decides.
    """
    named = [name for name in classifiers if name.startswith("License ::")]
    guesses: list[Licence] = []
    if expression and expression.strip():
        guesses.append(_licence(classify_expression(expression), "License-Expression", expression))
    if named:
        guesses.append(_licence(_classify_classifiers(named), "classifier", "; ".join(map(_last_part, named))))
    if field and field.strip():
        guesses.append(_licence(_classify_field(field), "License field", field.strip().splitlines()[0]))
    known = [guess for guess in guesses if guess.kind is not Kind.UNKNOWN]
    return (known or guesses or [Licence(kind=Kind.UNKNOWN, evidence="the metadata names no licence")])[0]


def classify_expression(expression: str) -> Kind:
    """Return the kind of an SPDX licence expression; unknown if it is not one."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        kind = _any_of(tokens)
    except (IndexError, RecursionError):
        return Kind.UNKNOWN
    return Kind.UNKNOWN if tokens else kind


def _any_of(tokens: list[str]) -> Kind:
    kinds = [_all_of(tokens)]
    while tokens and tokens[0].upper() == "OR":
        tokens.pop(0)
        kinds.append(_all_of(tokens))
    return min(kinds, key=_STRICTNESS_ANY.index)


def _all_of(tokens: list[str]) -> Kind:
    kinds = [_one(tokens)]
    while tokens and tokens[0].upper() == "AND":
        tokens.pop(0)
        kinds.append(_one(tokens))
    return max(kinds, key=_STRICTNESS_ALL.index)


def _one(tokens: list[str]) -> Kind:
    token = tokens.pop(0)
    if token == "(":
        kind = _any_of(tokens)
        if tokens.pop(0) != ")":
            raise IndexError
    else:
        kind = _BY_SPDX_ID.get(re.sub(r"(-only|-or-later|\+)$", "", token.lower()), Kind.UNKNOWN)
    if tokens and tokens[0].upper() == "WITH":
        # An exception takes something back from a licence: linking with such a GPL's code is free.
        _, exception = tokens.pop(0), tokens.pop(0)
        if kind is Kind.STRONG_COPYLEFT and re.search(r"classpath|linking|GCC-exception", exception, re.IGNORECASE):
            kind = Kind.WEAK_COPYLEFT
    return kind


def _classify_classifiers(named: list[str]) -> Kind:
    """Return the strictest known kind: whether several classifiers mean "and" or "or", nobody can tell."""
    kinds = [kind for name in named if (kind := _by_words(_last_part(name))) is not Kind.UNKNOWN]
    return max(kinds, key=_STRICTNESS_ALL.index, default=Kind.UNKNOWN)


def _classify_field(field: str) -> Kind:
    """Read an expression, a name, or a whole text whose first line is its name: the field holds any of these."""
    kind = classify_expression(field)
    return kind if kind is not Kind.UNKNOWN else _by_words(field.strip().splitlines()[0])


def _by_words(text: str) -> Kind:
    return next((kind for pattern, kind in _BY_WORDS if pattern.search(text)), Kind.UNKNOWN)


def _last_part(classifier: str) -> str:
    return classifier.rpartition(" :: ")[2]


def _licence(kind: Kind, source: str, text: str) -> Licence:
    text = " ".join(text.split())
    clipped = text if len(text) <= _MAX_EVIDENCE else text[: _MAX_EVIDENCE - 3] + "..."
    return Licence(kind=kind, evidence=f"{source}: {clipped}")
