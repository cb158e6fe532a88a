"""Training in the background of a notebook, with a dashboard."""
