"""Helpers of the course notebooks: checks of exercises, and interactive figures with sliders."""
