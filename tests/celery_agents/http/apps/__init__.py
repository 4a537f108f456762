"""Small real applications that have the front door in them."""
