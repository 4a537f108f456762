"""Real worker processes, killed, frozen and cut off: every execution still ends as if nothing had happened.

Read in this order: `agents` (what the workers execute), `ledger` (what they tell the outside), `invariants` (what must
hold afterwards), `processes` (pytest-celery's nodes as local processes), `scene` (one test's broker, store and
workers), `scenarios` (what happens to them), and then the tests.
"""
