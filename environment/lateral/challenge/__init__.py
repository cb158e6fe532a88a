"""Evaluate and export trained policies as controllers of comma.ai's controls challenge.

policy_controller    a policy as a controller, called in the official order
evaluate             evaluate_lateral(): any controller and PID over the same segments and noise
results              the results: costs, the paired difference, table, CSV
controller_file      export_controller(): one Python file that contains the weights
official_controller  the source of that file, in addition to `environment.lateral.driver`
official_eval        the challenge's own evaluation of such a file, in the user's clone
"""

from .controller_file import export_controller
from .evaluate import evaluate_lateral
from .official_eval import official_eval
from .policy_controller import PolicyController, load_controller
from .results import Drives, LateralEvaluation

__all__ = [
    "Drives",
    "LateralEvaluation",
    "PolicyController",
    "evaluate_lateral",
    "export_controller",
    "load_controller",
    "official_eval",
]
