"""Lateral control beyond the environment: what a trained policy is worth in comma.ai's controls challenge.

policy_controller  a policy as a controller, called in the official order
evaluate           evaluate_lateral(): any controller and PID over the same segments and noise
results            what came out: costs, the paired difference, table, CSV
"""

from ppo_lab.lateral.evaluate import evaluate_lateral
from ppo_lab.lateral.policy_controller import PolicyController, load_controller
from ppo_lab.lateral.results import Drives, LateralEvaluation

__all__ = ["Drives", "LateralEvaluation", "PolicyController", "evaluate_lateral", "load_controller"]
