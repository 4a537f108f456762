"""A hotel that remembers its guests, across executions: with the last messages, with facts, and with both."""
