"""Servers that the tests run against: from the environment, from PATH, or from a wheel."""
