"""The engine: runs one claimed execution step by step. It knows nothing of Celery.

Read in this order: `executor` (a claim becomes an outcome), `run` and `async_run` (the agent's door to everything
durable), `building` (a call becomes a step), `stepping` (a step is taken, tried again, recorded), `attempt` (what all
operations of one claim stand on), `journal` (what is recorded already), `recorder` (writes checkpoints under the
lease), `keeper` (keeps the lease alive). What pauses: `waiting`, and on it `asking`, `approving`, `eventing`,
`sleeping`, `children`. What a crash in the middle of a call means: `crashing`. Steps beside each other: `parallel`,
`traffic`, `nesting`, `replay_order`.
"""
