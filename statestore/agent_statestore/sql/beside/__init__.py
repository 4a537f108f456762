"""What the SQL store does beside executions: documents, and duties."""
