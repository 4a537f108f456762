"""Procfile, compose file and Dockerfile: what they start is run here, command by command."""
