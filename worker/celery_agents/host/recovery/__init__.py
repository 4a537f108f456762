"""What a worker does for executions that nobody works on: rings for what is due, and puts the store in order."""
