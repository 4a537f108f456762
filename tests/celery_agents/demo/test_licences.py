"""Which kind of licence the metadata means."""

import pytest

from celery_agents.demo.environment_audit.licences import Kind, classify, classify_expression

MIT = "License :: OSI Approved :: MIT License"
LGPL = "License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"
GPL = "License :: OSI Approved :: GNU General Public License v2 or later (GPLv2+)"


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("MIT", Kind.PERMISSIVE),
        ("mit", Kind.PERMISSIVE),
        ("Apache-2.0 OR BSD-2-Clause", Kind.PERMISSIVE),
        ("Apache-2.0 AND BSD-2-Clause", Kind.PERMISSIVE),
        ("MPL-2.0", Kind.WEAK_COPYLEFT),
        ("LGPL-3.0-or-later", Kind.WEAK_COPYLEFT),
        ("GPL-2.0-only", Kind.STRONG_COPYLEFT),
        ("GPL-3.0+", Kind.STRONG_COPYLEFT),
        ("AGPL-3.0-or-later", Kind.STRONG_COPYLEFT),
        ("MIT OR GPL-3.0-only", Kind.PERMISSIVE),
        ("MIT AND GPL-3.0-only", Kind.STRONG_COPYLEFT),
        ("(MIT OR GPL-3.0-only) AND MPL-2.0", Kind.WEAK_COPYLEFT),
        ("MIT OR GPL-3.0-only AND MPL-2.0", Kind.PERMISSIVE),
        ("Apache-2.0 WITH LLVM-exception", Kind.PERMISSIVE),
        ("GPL-2.0-only WITH Classpath-exception-2.0", Kind.WEAK_COPYLEFT),
        ("LicenseRef-Ours", Kind.UNKNOWN),
        ("MIT AND LicenseRef-Ours", Kind.UNKNOWN),
        ("GPL-3.0-only AND LicenseRef-Ours", Kind.STRONG_COPYLEFT),
        ("MIT OR LicenseRef-Ours", Kind.PERMISSIVE),
        ("", Kind.UNKNOWN),
        ("MIT AND", Kind.UNKNOWN),
        ("MIT Apache-2.0", Kind.UNKNOWN),
        ("(MIT", Kind.UNKNOWN),
        ("(" * 5000, Kind.UNKNOWN),
    ],
)
def test_expressions(expression: str, kind: Kind) -> None:
    assert classify_expression(expression) is kind


@pytest.mark.parametrize(
    ("expression", "classifiers", "field", "kind", "evidence"),
    [
        ("MIT", [GPL], "BSD", Kind.PERMISSIVE, "License-Expression: MIT"),
        (None, [MIT], "GPL", Kind.PERMISSIVE, "classifier: MIT License"),
        (None, [MIT, GPL], None, Kind.STRONG_COPYLEFT, "classifier: MIT License; GNU General..."),
        (None, [LGPL], None, Kind.WEAK_COPYLEFT, "classifier: GNU Lesser General Public License v3 (LGPLv3)"),
        (None, ["License :: OSI Approved"], "BSD-3-Clause", Kind.PERMISSIVE, "License field: BSD-3-Clause"),
        (None, [], "GPLv3", Kind.STRONG_COPYLEFT, "License field: GPLv3"),
        (None, [], "MIT License\n\nPermission is hereby granted", Kind.PERMISSIVE, "License field: MIT License"),
        ("LicenseRef-Ours", [], "Apache 2.0", Kind.PERMISSIVE, "License field: Apache 2.0"),
        ("LicenseRef-Ours", [], None, Kind.UNKNOWN, "License-Expression: LicenseRef-Ours"),
        (None, [], "as the author permits", Kind.UNKNOWN, "License field: as the author permits"),
        (None, ["Topic :: Software Development"], "  ", Kind.UNKNOWN, "the metadata names no licence"),
    ],
)  # fmt: skip
def test_sources(expression: str | None, classifiers: list[str], field: str | None, kind: Kind, evidence: str) -> None:
    licence = classify(expression, classifiers, field)
    assert licence.kind is kind
    assert licence.evidence == evidence or (evidence.endswith("...") and licence.evidence.startswith(evidence[:-3]))
