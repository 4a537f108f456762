"""A checkpointer that stands for those of databases."""

from langgraph.checkpoint.base import BaseCheckpointSaver


class OtherSaver(BaseCheckpointSaver[str]):
    """Keeps nothing, for no test comes so far."""
