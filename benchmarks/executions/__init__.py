"""Whole executions from enqueue to end, beside bare Celery and the queues of Absurd and DBOS, in one run.

`ways` starts everything that is compared, `way` is what they have in common, `measure` takes the turns, `counting`
counts round trips, and `goals` says what was to be reached.
"""
