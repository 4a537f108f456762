"""Agents of other frameworks as durable executions. Each framework is imported in its own room only."""
