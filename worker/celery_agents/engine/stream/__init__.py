"""What an execution says into its stream, live: kept together, and written beside its checkpoints or with them."""
