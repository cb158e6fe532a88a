"""The networks: actor and critic, their bodies, and the distributions of actions."""
