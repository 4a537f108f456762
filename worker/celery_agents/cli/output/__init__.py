"""How the commands show what they show."""
