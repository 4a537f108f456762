"""The servers behind a Redis store: how they are found, which one holds a key, and how commands reach them."""
