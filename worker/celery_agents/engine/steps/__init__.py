"""A step: from the call in the agent's code to its record."""
