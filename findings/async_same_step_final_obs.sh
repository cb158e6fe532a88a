#!/usr/bin/env bash
# gymnasium 1.4.0: AsyncVectorEnv in autoreset mode SAME_STEP hands on an environment's final observation without a copy. An
# environment that returns one buffer of its own each time (allowed, and common for images) has already reset into it by then, so
# infos["final_obs"] shows the first observation of the next episode. The environment counts 0, 1, 2, 3 and ends at 3: the final
# observation has to be 3, and is 0. Nothing raises, nothing warns. Value bootstraps at truncations are wrong by that.
# Seen on 2026-11-30 with CPython 3.11: final observation 0.0 with the buffer, 3.0 with copies.
# Fails if the buffer's final observation is right, or the copies' one is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6"
cat > "$folder/count.py" <<'PY'
import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode


class Count(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 9, (1,), np.float32), gymnasium.spaces.Discrete(2)

    def __init__(self, copies):
        self.copies, self.buffer = copies, np.zeros(1, np.float32)

    def shown(self):
        return self.buffer.copy() if self.copies else self.buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer[:] = 0
        return self.shown(), {}

    def step(self, action):
        self.buffer += 1
        return self.shown(), 1.0, False, bool(self.buffer[0] >= 3), {}


def final(copies):
    envs = AsyncVectorEnv([lambda: Count(copies)], autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    for _ in range(3):
        infos = envs.step(np.zeros(1, np.int64))[-1]
    envs.close()
    return float(np.asarray(infos["final_obs"][0]).ravel()[0])


if __name__ == "__main__":
    reused, copied = final(False), final(True)
    print(f"gymnasium {gymnasium.__version__}: final observation {reused} with one buffer, {copied} with copies; 3.0 is right")
    raise SystemExit(reused == 3.0 or copied != 3.0)
PY
"$folder/venv/bin/python" "$folder/count.py"
