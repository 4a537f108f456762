"""What a write changes, and why it is refused: decided from the header alone, without reading or writing anything.

The stores that decide in Python (in memory, and in SQL under a lock) call these functions under their lock and write
what they return. PostgreSQL's statements and the Lua scripts say the same in another language; PostgreSQL asks here for
the error when nothing was written. A header is a mapping of `codec.HEADER_FIELDS`; None stands for an execution that is
unknown or deleted. Changes are the fields of the header that get new values.
"""
