"""The errors of documents; for the tree of all errors see `agent_statestore.errors`."""

from agent_statestore.errors import StoreError


class DocumentConflict(StoreError):
    """A document does not have the version that a write expects, and nothing was written. 0 stands for no document."""

    def __init__(self, namespace: tuple[str, ...], key: str, expected: int, found: int) -> None:
        super().__init__(namespace, key, expected, found)
        self.namespace = namespace
        self.key = key
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        found = f"has version {self.found}" if self.found else "is not there"
        wanted = f"version {self.expected} was expected" if self.expected else "none was expected"
        return f"the document {self.key!r} of {'/'.join(self.namespace)} {found}, and {wanted}"


class NamespaceHeld(StoreError):
    """Another execution, which is active, is the one writer of a namespace of documents."""

    def __init__(self, namespace: tuple[str, ...], execution_id: str) -> None:
        super().__init__(namespace, execution_id)
        self.namespace = namespace
        self.execution_id = execution_id

    def __str__(self) -> str:
        return f"execution {self.execution_id} holds {'/'.join(self.namespace)} until it is over"


class DocumentUnreadable(StoreError):
    """What is stored of a document is damaged."""

    def __init__(self, namespace: tuple[str, ...], key: str, reason: str) -> None:
        super().__init__(namespace, key, reason)
        self.namespace = namespace
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"the document {self.key!r} of {'/'.join(self.namespace)} is damaged: {self.reason}"
