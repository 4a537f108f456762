"""Agents that do something useful without any key or network."""
