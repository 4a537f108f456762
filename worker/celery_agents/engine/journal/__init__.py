"""What is recorded of an execution: the journal, the writes to it, and what goes with them."""
