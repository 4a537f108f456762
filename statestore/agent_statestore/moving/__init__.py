"""Executions on their way out: copied to another store, or purged when their time is over."""
