"""How the commands present their output."""
