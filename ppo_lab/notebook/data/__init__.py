"""Gather what plots draw."""
