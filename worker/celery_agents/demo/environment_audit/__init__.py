"""An agent that audits a Python environment: are its files as they were published, and under which licences?

`agent.py` is the agent; the other modules are ordinary functions that know nothing of it.
"""
