"""A check that is asked before each use of an app's store. The pytest plug-in sets it; elsewhere there is none.

It stands in a file of its own so that the plug-in imports nothing else.
"""

from collections.abc import Callable

# Gets the store's URL; raises an error to refuse it.
check: Callable[[str], None] | None = None
