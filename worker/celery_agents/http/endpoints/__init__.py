"""The functions of the endpoints: each gets an `EndpointCall` that is permitted and of the right form, and replies."""
