"""The handle that a client holds on one execution."""
