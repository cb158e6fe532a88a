"""Adapt ale_py's vector environment of Atari games, with the standard preprocessing.

Up to 29 no-ops and FIRE (where the game has it) at the start of a game, each action for 4 frames, the maximum of the
last two, 84 x 84 grey, the last 4 of them as one observation (4, 84, 84) uint8 (Mnih et al. 2015; Machado et al. 2018).
Rewards are not clipped here: `ppo.reward_bound` clips them for learning, so that the logged return is the true one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from ppo_lab.envs.adapters.episode_numbers import EpisodeNumbers, InfoMetrics
from ppo_lab.envs.adapters.ids import make_vector
from ppo_lab.envs.adapters.info import InfoKeys, InfoReader
from ppo_lab.envs.adapters.loop import Recipe, episode_seed
from ppo_lab.envs.adapters.replay import ActionLog, recipe_from, steps_of
from ppo_lab.envs.adapters.rows import Rows
from ppo_lab.envs.adapters.steps import action_format, as_numpy, as_step, on_device
from ppo_lab.envs.contract import Action, Obs, Step
from ppo_lab.errors import ConfigError, EnvError, describe_error

RESEED_AFTER = 2000  # steps: a seeded reset reloads the game, which takes the time of some 200 steps
FRAMES = {"max_num_frames_per_episode": 108_000, "frameskip": 4}  # keywords of AtariVectorEnv and their defaults
OURS = {  # keywords of AtariVectorEnv that are set elsewhere or fixed here -> how
    "autoreset_mode": "games restart automatically",
    "batch_size": "all environments are stepped together",
    "episodic_life": "set env.life_loss",
    "life_loss_info": "set env.life_loss",
    "reward_clipping": "set ppo.reward_bound to 1, which keeps the logged returns unclipped",
}


def is_atari(spec: EnvSpec) -> bool:
    """Return whether ale_py provides a vector environment for this spec."""
    return str(spec.vector_entry_point).startswith("ale_py.")


def make_atari(
    spec: EnvSpec,
    num_envs: int,
    kwargs: Mapping[str, Any],
    life_loss: bool,
    device: torch.device,
    info_keys: InfoKeys = (),
) -> AtariEnvs:
    """Make N games of an id "ALE/...". Raises ConfigError for kwargs that are in OURS, and as `make_vector`."""
    for name, instead in OURS.items():
        if name in kwargs:
            raise ConfigError(f"env.kwargs: {name} cannot be set for {spec.id}: {instead}")
    given = {"autoreset_mode": AutoresetMode.SAME_STEP, "life_loss_info": life_loss, "reward_clipping": False}
    envs = AtariEnvs(make_vector(spec, num_envs, {**kwargs, **given}), device, info_keys)
    frames, each = (int(kwargs.get(name, default)) for name, default in FRAMES.items())
    envs.longest_episode = frames // each + 1  # ale_py counts frames; no-ops at the start are env steps too
    return envs


class AtariEnvs(InfoMetrics):
    """N Atari games, stepped by threads of ale_py.

    Where only a life was lost, `terminated` is True and the game continues: `obs` and `final_obs` are equal there, and
    `episode_done` is False. A game's randomness follows from the seed of its reset. A seeded reset can take longer than
    a short game, so one seed starts a stretch of several games: the first game that ends RESEED_AFTER steps or more
    after the last seeded reset is followed by a new seed. Replaying the actions of the stretch restores its state.
    """

    def __init__(
        self, envs: gymnasium.vector.VectorEnv, device: torch.device | str = "cpu", info_keys: InfoKeys = ()
    ) -> None:
        """Take ownership of the vector environment: `close` closes it. info_keys: as `EnvConfig.info_keys`."""
        self.num_envs = envs.num_envs
        self.observation_space: gymnasium.Space = envs.single_observation_space
        self.action_space: gymnasium.Space = envs.single_action_space
        self.device = torch.device(device)
        self.episode_done = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)  # not only a life
        self._envs = envs
        self._infos, self.numbers = InfoReader([key for key, _ in info_keys]), EpisodeNumbers(info_keys, self.num_envs)
        self.numbers.there = self._infos.there
        self._info = self.numbers.empty()  # (N, K) of the last step
        self._action_format = action_format(self.num_envs, self.action_space)
        self._log = ActionLog(self.num_envs, self._action_format)
        self._obs = np.zeros(0, np.uint8)  # (N, stack, 84, 84) the latest observation
        self._begun = np.zeros(self.num_envs, np.int64)  # frame at which each game began
        self._ready = self._closed = False

    def reset(self, seed: int) -> Obs:
        """Start all N games from one run seed; return the first observations (N, stack, 84, 84) uint8."""
        self._log.reset(seed)
        self._seed(np.ones(self.num_envs, np.bool_))
        self.numbers.begin()
        self._ready = True
        return torch.from_numpy(self._obs).to(self.device)

    def step(self, action: Action) -> Step:
        """Act once in each game: action is (N,) for Discrete, (N, 3) for the continuous action space.

        Raises EnvError if ale_py fails or the action does not fit; after a failure only `reset` is possible.
        """
        if not self._ready:
            raise EnvError("call reset() before the first step, and again after a failed or interrupted one")
        array = as_numpy(action, self._action_format)
        self._ready = False
        rows, over = self._act(array)
        due = over & (self._log.length + 1 >= RESEED_AFTER)
        self._log.record(array, rows.reward, due)
        if due.any():
            self._seed(due)
            rows = rows._replace(obs=self._obs)
        self.episode_done = torch.from_numpy(over).to(self.device)
        self.numbers.take(self._info, torch.from_numpy(over))
        self._ready = True
        return on_device(as_step(rows, np.ones(self.num_envs, np.bool_)), self.device)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of the games: the seeds of their stretches, and the actions since."""
        return self.numbers.added_to(self._log.state_dict(torch.from_numpy(self._obs))) or None

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Replay the current stretches. Raises EnvError if a replay does not end in the saved observation."""
        recipe = recipe_from(saved)
        self._ready = False
        self._replay(recipe)
        for i in range(self.num_envs):
            if not np.array_equal(self._obs[i], recipe.obs[i]):
                raise EnvError(f"environment {i} cannot be restored: another version of ale-py?")
        self._log.load(saved)
        self.numbers.load(saved)
        self._ready = True

    def close(self) -> None:
        """Close the games. Twice is harmless."""
        self._ready = False
        if not self._closed:
            self._closed = True
            self._envs.close()

    def _replay(self, recipe: Recipe) -> None:
        """Replay all stretches so that they end at the same step: the longest starts first, the others when due."""
        self._log.reset(recipe.run_seed)
        self._log.episode[:] = recipe.episode
        lengths = np.array([steps_of(actions) for actions in recipe.actions])
        longest = int(lengths.max())
        self._seed(np.ones(self.num_envs, np.bool_))
        action = np.zeros(*self._action_format)
        for t in range(longest):
            due = lengths == longest - t
            if t and due.any():
                self._seed(due)
            for i in np.flatnonzero(lengths >= longest - t):
                action[i] = recipe.actions[i][t - longest]
            self._act(action)
        if longest and (lengths == 0).any():
            self._seed(lengths == 0)

    def _act(self, action: np.ndarray) -> tuple[Rows, np.ndarray]:
        """Step all games. Returns the result, and (N,) bool: the game is over."""
        try:
            obs, reward, terminated, truncated, infos = self._envs.step(action)
        except Exception as error:
            raise EnvError(f"{self._name()}: step of {self.num_envs} games failed: {describe_error(error)}") from error
        ended = terminated | truncated
        begun = infos["frame_number"] - infos["episode_frame_number"]
        over = (begun != self._begun) | truncated
        if (over & ~ended).any():
            raise EnvError(f"{self._name()}: game {int(np.argmax(over & ~ended))} restarted without having ended")
        self._begun = begun
        self._obs = final_obs = obs
        if over.any():
            final_obs = obs.copy()
            final_obs[over] = infos["final_obs"][over]  # for a game that only lost a life, info has an older frame
        if self._infos.keys:
            self._info = self._infos.read_batch(infos, over)
        return Rows(obs, final_obs, reward.astype(np.float32), terminated.copy(), truncated.copy()), over

    def _seed(self, which: np.ndarray) -> None:
        """Begin new stretches, each with its own seed, where `which` (N,) is True."""
        seeds = [episode_seed(self._log.run_seed, int(i), int(self._log.episode[i])) for i in np.flatnonzero(which)]
        options = {} if which.all() else {"reset_mask": which.copy()}
        try:
            obs, infos = self._envs.reset(seed=np.array(seeds), options=options)  # type: ignore[arg-type]  # ale-py takes an array
        except Exception as error:
            raise EnvError(f"{self._name()}: reset failed: {describe_error(error)}") from error
        self._obs = obs
        self._begun = infos["frame_number"] - infos["episode_frame_number"]

    def _name(self) -> str:
        return self._envs.spec.id if self._envs.spec is not None else "ale_py"
