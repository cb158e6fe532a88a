"""Lateral control beyond the environment: a trained policy as a controller of comma.ai's controls challenge.

controller_file      export_controller(): one Python file with the weights inside
official_controller  what that file consists of, besides the text of `environment.lateral.driver`
official_eval        the challenge's own evaluation of such a file, in the user's clone
"""

from ppo_lab.lateral.controller_file import export_controller
from ppo_lab.lateral.official_eval import official_eval

__all__ = ["export_controller", "official_eval"]
