"""What monitors, such as Flower, are told of executions while they run."""
