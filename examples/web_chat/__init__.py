"""A travel desk in the browser: an agent whose answers stream, whose bookings are approved, and which can be steered.

`make demo-web` runs it: a page without a build step, FastAPI, a Celery worker, and a scripted model.
"""
