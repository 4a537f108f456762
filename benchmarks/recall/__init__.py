"""How fast and how well facts are found again."""
