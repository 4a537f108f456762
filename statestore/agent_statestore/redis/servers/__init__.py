"""The servers behind a Redis store: which there are, which holds a key, and how commands reach them."""
