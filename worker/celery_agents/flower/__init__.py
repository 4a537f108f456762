"""Flower's view of executions."""
