"""Show the agent at work: drawings, films, a player with controls."""
