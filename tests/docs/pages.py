"""The pages that people read, and the blocks in them."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Their blocks need the frameworks, which have an environment of their own; `tests/integrations` runs them.
FRAMEWORK_PAGES: Final = [page for page in PAGES if page.parent.name == "frameworks"]
# Links of the README are absolute, so that they lead somewhere on the page of a package index too.
REPOSITORY: Final = "https://github.com/celery-agents/celery-agents"


def blocks(page: Path, language: str = "python") -> list[str]:
    """Return the fenced blocks of a language; "python no-run" are those that need a web framework or a worker."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
