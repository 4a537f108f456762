"""The agent's door to everything durable: `Run`, and `AsyncRun` on the process's event loop."""
