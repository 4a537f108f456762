"""Graphs of LangGraph as durable executions; needs the extra `langgraph`.

    graph = StateGraph(State).add_node(plan).add_node(act)....compile(name="planner")
    planner = durable_graph(graph)

    planner.enqueue({"topic": "tea"})

Each node of the graph is a step of the execution: called once, recorded, and after a crash taken from the record. An
`interrupt()` pauses the execution until somebody answers.
"""

from celery_agents.integrations.langgraph.durable import durable_graph
from celery_agents.integrations.langgraph.items import GraphStore
from celery_agents.integrations.langgraph.nodes import durable_nodes
from celery_agents.integrations.langgraph.saver import StoreSaver, ThreadChanged
from celery_agents.integrations.step_options import StepOptions

__all__ = ["GraphStore", "StepOptions", "StoreSaver", "ThreadChanged", "durable_graph", "durable_nodes"]
