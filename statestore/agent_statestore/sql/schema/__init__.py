"""The schema of the SQL store: its migrations, and whether the database has it."""
