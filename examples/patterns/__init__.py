"""Short agents, one pattern per file. Put them on a worker with `AGENTS_IMPORTS=examples.patterns`.

| file | pattern |
|---|---|
| `pipeline.py` | one step after the other |
| `routing.py` | a graph with conditions: what comes next depends on what came out, and may lead back |
| `fan_out.py` | many at once, and a merge: as steps of one execution, and as separate executions |
| `supervisor.py` | a loop agent that delegates to worker agents |
| `async_agent.py` | an async agent that waits on the network for many things at once |
| `approval.py` | a tool call that a person must approve, and may change |
"""

from examples.patterns import approval, async_agent, fan_out, pipeline, routing, supervisor

__all__ = ["approval", "async_agent", "fan_out", "pipeline", "routing", "supervisor"]
