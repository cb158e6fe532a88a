"""The PPO algorithm: one update (`update.py`), and each of its steps as a function in a module of its own."""
