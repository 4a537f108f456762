"""What Flower shows of executions."""
