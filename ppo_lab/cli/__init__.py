"""The command line, `python -m ppo_lab`."""
