"""What the parts of the conformance suite are written with."""
