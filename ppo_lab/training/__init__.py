"""The trainer around the algorithm: recording, checkpoints, resume, fork, replay, live changes."""
