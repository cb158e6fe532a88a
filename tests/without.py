"""A pytest plugin that hides packages, as on a machine where they are not installed: `-p tests.without`.

PPO_LAB_WITHOUT names them: "playwright,mujoco". Python answers `import mujoco` with a ModuleNotFoundError then, and
`importlib.util.find_spec("mujoco")` with None.
"""

from __future__ import annotations

import os
import sys

for name in os.environ.get("PPO_LAB_WITHOUT", "").split(","):
    if name:
        sys.modules[name] = None  # type: ignore[assignment]  # what Python itself looks for
