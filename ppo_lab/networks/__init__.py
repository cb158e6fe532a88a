"""Network bodies: from an observation to features. Which body a config asks for is decided in `BODIES`."""

from ppo_lab.networks.mlp import ACTIVATIONS, MLP, orthogonal

BODIES = {"mlp": MLP}

__all__ = ["ACTIVATIONS", "BODIES", "MLP", "orthogonal"]
