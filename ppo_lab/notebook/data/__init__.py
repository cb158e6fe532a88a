"""Collect the data that plots show."""
