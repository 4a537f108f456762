"""The engine: runs one claimed execution step by step. It knows nothing of Celery.

Read in this order: `executor` (a claim becomes an outcome), `run` (the agent's door to everything durable), `journal`
(what is already recorded), `recorder` (writes checkpoints under the lease), `keeper` (keeps the lease alive).
"""
