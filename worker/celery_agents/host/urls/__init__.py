"""The URLs of servers among the settings: read before Celery reads them, and shown without passwords."""
