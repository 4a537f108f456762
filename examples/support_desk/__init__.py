"""A support desk on Pydantic AI: it looks into an order, asks the customer, and pays money back when somebody agrees.

`make demo-llm` runs it: a worker is killed in the middle, and no answer of the model is paid for twice.
"""
