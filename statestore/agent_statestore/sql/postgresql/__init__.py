"""PostgreSQL: each primitive is one statement."""
