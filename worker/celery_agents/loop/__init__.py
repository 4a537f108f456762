"""The loop agent: a function that decides, turn by turn, what is to be done next; the loop does it, durably."""

from celery_agents.loop.actions import (
    AskUser,
    Complete,
    Decision,
    LoopAction,
    Respond,
    Think,
    ToolCall,
    Usage,
    UseTool,
    UseTools,
    WaitFor,
)
from celery_agents.loop.context import LoopContext, LoopResult, ToolDescription
from celery_agents.loop.decorator import loop_agent
from celery_agents.loop.messages import action_from_chat

__all__ = [  # noqa: RUF022 - grouped
    "loop_agent",
    "LoopContext",
    "LoopResult",
    "ToolDescription",
    # actions
    "LoopAction",
    "Think",
    "UseTool",
    "UseTools",
    "ToolCall",
    "AskUser",
    "Respond",
    "WaitFor",
    "Complete",
    # what a decision may carry besides its action
    "Decision",
    "Usage",
    "action_from_chat",
]
