"""How executions per second grow with workers and stores: measured on one machine, and from there simulated.

`calibration` and `paused` measure what calls and executions cost, `simulation` plays fleets with these costs, and
`measure` makes the tables. docs/scaling.md says how to read them.
"""
