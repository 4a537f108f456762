"""The driver that a backend declares: `with driver("redis", extra="redis"): import ...`."""

from collections.abc import Iterator
from contextlib import contextmanager


class AbsentDriver(ModuleNotFoundError):
    """A driver is not installed. `open_store` makes `MissingDriver` of it, since it knows the URL's scheme.

    Attributes:
        package: the driver's package.
        extra: the extra of celery-agents that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra, name=package)
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return f"the package {self.package!r} is needed: pip install 'celery-agents[{self.extra}]'"


@contextmanager
def driver(package: str, *, extra: str) -> Iterator[None]:
    """Declare the driver that the block imports or connects to.

    Raise `AbsentDriver` where exactly that package is missing. Any other missing module is a fault, and stays one.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package or isinstance(error, AbsentDriver):
            raise
        raise AbsentDriver(package, extra) from error
