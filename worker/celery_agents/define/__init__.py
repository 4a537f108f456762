"""What users define: agents and tools, and the parts of a definition. Knows nothing of how it is executed."""
