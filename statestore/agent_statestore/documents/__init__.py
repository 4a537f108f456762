"""Documents: what a store keeps beside executions, and what outlives them.

Conversations, LangGraph's threads and long-term memory are made of documents. A document stands under a namespace and a
key, and has a value, metadata and a version. The contract is `DocumentStore`; every store has one, its `documents`.
"""

from agent_statestore.documents.contract import DEFAULT_MAX_DOCUMENT_BYTES, MOST_OPERATIONS, DocumentStore
from agent_statestore.documents.query import DocumentPage, DocumentQuery
from agent_statestore.documents.records import (
    Document,
    DocumentPlace,
    Expect,
    Namespace,
    Operation,
    Put,
    Remove,
    Written,
)

__all__ = [
    "DEFAULT_MAX_DOCUMENT_BYTES",
    "MOST_OPERATIONS",
    "Document",
    "DocumentPage",
    "DocumentPlace",
    "DocumentQuery",
    "DocumentStore",
    "Expect",
    "Namespace",
    "Operation",
    "Put",
    "Remove",
    "Written",
]
