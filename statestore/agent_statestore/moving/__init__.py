"""Executions that leave a store: copied to another one, or purged when their time is over."""
