"""What users define: agents, tools and the parts of a definition. Knows nothing of how they are executed."""
