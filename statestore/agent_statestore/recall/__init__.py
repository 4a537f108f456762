"""Long-term memory: facts that outlive executions, and how they are found again.

A fact belongs to a scope: a user, a session, an agent or a team. It says where it comes from and how long it holds, and
is kept as a document. Facts are found by what they are about: `Recall` turns texts into vectors with a function of the
caller's, and keeps the vectors in the store.
"""

from agent_statestore.recall.facts import Fact, Facts, Scope, ScopeKind
from agent_statestore.recall.recall import Recall, Recalled
from agent_statestore.recall.vectors import DocumentVectors, Embed, VectorIndex

__all__ = [
    "DocumentVectors",
    "Embed",
    "Fact",
    "Facts",
    "Recall",
    "Recalled",
    "Scope",
    "ScopeKind",
    "VectorIndex",
]
