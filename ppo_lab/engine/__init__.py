"""Scale: what lets the same training use a larger machine."""
