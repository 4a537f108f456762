"""Endpoints for the front ends of others: they start an execution, or answer it, and follow it in one request.

`agui` serves those that speak AG-UI, `chat` those that are made with `useChat` of the AI SDK. What they send becomes an
agent's input in `inputs`, and answers in `answering`; `streaming` is the body of the response.
"""
