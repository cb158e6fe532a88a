"""Episodes of a policy as pictures: its values and actions, films, and a player that steps one environment."""
