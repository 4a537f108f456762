"""The real Flower, read back through its API, beside real workers."""
