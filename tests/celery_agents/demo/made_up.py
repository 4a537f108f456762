"""Distributions made up for tests: a folder with files, a METADATA and a RECORD."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def make_distribution(
    site: Path,
    name: str,
    *,
    files: Mapping[str, str] | None = None,
    unhashed: Sequence[str] = (),
    headers: Sequence[str] = (),
    editable: bool = False,
    with_record: bool = True,
) -> Path:
    """Installs `name` 1.0 into the folder `site`; returns its dist-info folder."""
    info = f"{name}-1.0.dist-info"
    contents = {
        **(files or {}),
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *headers, "", ""]),
    }
    if editable:
        contents[f"{info}/direct_url.json"] = json.dumps({"url": "file:///src", "dir_info": {"editable": True}})
    record = []
    for path, content in contents.items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        quoted = f'"{path}"' if "," in path else path
        record.append(f"{quoted},," if path in unhashed else f"{quoted},sha256={digest},{len(content.encode())}")
    if with_record:
        (site / info / "RECORD").write_text("\n".join([*record, f"{info}/RECORD,,", ""]), encoding="utf-8")
    return site / info
