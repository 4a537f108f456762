"""What an execution may wait for. Each kind of pause is a file here."""
