"""Messages as they come in: which shapes are none, and the shield that keeps them from ending a worker."""
