"""What durability costs, as ratios measured in one run: `python -m benchmarks`.

Each figure is taken in turns with the one that it is compared with (ABBA..., medians of rounds), so that what else the
machine does meets both. Never timed tests: how many microseconds a machine takes says nothing about the code.

Sections: `overhead` (a step against the raw client), `growth` (a step after many steps), `storage` (bytes kept),
`resuming` (claim and replay), `scale` (what concerns few executions, among many), `copying` (from store to store),
`throughput` (real workers against bare Celery tasks), `concurrency` (hundreds of executions at once that wait for the
network).
"""
