"""The code of the documentation's pages about frameworks, as modules."""

import sys
from types import ModuleType

from tests.docs.pages import FRAMEWORK_PAGES, blocks


def run_page(name: str) -> ModuleType:
    """Runs the Python of a page."""
    (page,) = [page for page in FRAMEWORK_PAGES if page.stem == name]
    module = ModuleType(f"page_{name}")
    sys.modules[module.__name__] = module
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), module.__dict__)
    return module
