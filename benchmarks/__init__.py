"""The cost of durability, as ratios measured in one run: `python -m benchmarks`.

Each figure takes turns with the figure that it is compared with (ABBA..., medians of rounds), so that other work of the
machine meets both. These are not timed tests: the microseconds that a machine takes say nothing about the code.

Sections: `overhead` (a step against the raw client), `growth` (a step after many steps), `storage` (bytes kept),
`resume` (claim and replay), `scale` (work on few executions, among many), `copying` (from store to store), `workers`
(real workers against bare Celery tasks), `concurrency` (hundreds of executions at once that wait for the network),
`executions` (from enqueue to end, beside bare Celery and other queues), `scaling` (fleets, simulated with what was
measured), `files-entered` (how many files a call passes through).
"""
