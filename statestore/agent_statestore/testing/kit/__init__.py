"""The tools with which the parts of the conformance suite are written."""
