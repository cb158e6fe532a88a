"""The algorithm: one update, and each of its steps as a function."""
