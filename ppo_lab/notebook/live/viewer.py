"""The Agent panel: shows the current policy playing in a separate environment while training runs."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from html import escape

import ipywidgets as widgets
import numpy as np
from PIL import Image

from ppo_lab.errors import ConfigError, LabError, describe_error
from ppo_lab.evaluation.policy import Policy
from ppo_lab.notebook.agent.agent_picture import SCENE, Thought, compose, placeholder, to_png
from ppo_lab.notebook.agent.player import Course, Player
from ppo_lab.notebook.live.session import Session
from ppo_lab.training.trainer import Trainer

MOST_FPS = 15.0
SHARE, IDLE_SHARE = 0.04, 0.5  # of one core: while training runs, and while it does not
MOST_LENGTH = 10_000  # steps after which an episode is cut off
FRESH_SECONDS = 2.0  # a policy older than this is replaced, also in the middle of an episode
END_SECONDS = 0.8  # for which an episode's last picture is shown
NAP = 0.2  # seconds between two polls
SPEEDS = {"quarter speed": 0.25, "real time": 1.0, "4 times as fast": 4.0}
ABOUT = "A separate environment and a copy of the policy; playback may slow down while training runs."
GIVEN = "The trainer was given its environments; this one is made from config.env."
CHOICES = {"the most likely action": True, "sampled actions, as in training": False}


class AgentPanel:
    """A panel of the dashboard. A thread plays and draws while it is visible; otherwise there is none.

    It shares nothing with training: it has its own environment and random generator, and a copy of the policy made
    between two updates.
    """

    title = "Agent"

    def __init__(self) -> None:
        self._hold = widgets.ToggleButton(description="Hold", icon="pause", layout={"width": "90px"})
        self._choice = widgets.Dropdown(options=CHOICES, value=True, layout={"width": "220px"})
        self._speed = widgets.Dropdown(options=SPEEDS, value=1.0, layout={"width": "140px"})
        self._row = widgets.HBox([self._hold, self._choice, self._speed])
        # flex-start: stretching to the width of the page would blur it
        layout = {"object_fit": "contain", "align_self": "flex-start"}
        self._image = widgets.Image(value=placeholder("loading ..."), format="png", layout=layout)
        self._image.layout.max_width = "100%"
        self._line = widgets.HTML()
        self.widget = widgets.VBox([self._row, self._image, self._line])
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._in_sight = False
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()  # one per thread

    def refresh(self, session: Session) -> None:
        """Play this session's policy. Cheap: the thread fetches a policy only when it needs one."""
        with self._lock:
            self._session = session
            self._start()

    def show(self, in_sight: bool) -> None:
        """Start playing (once there is a session), or stop."""
        with self._lock:
            self._in_sight = in_sight
            if in_sight:
                self._start()
                return
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None:
            thread.join(5.0)  # a timeout, as the environment may hang; the thread draws nothing after the stop

    def close(self) -> None:
        """Stop, and close the widgets."""
        self.show(False)
        for part in (self._hold, self._choice, self._speed, self._row, self._image, self._line, self.widget):
            part.close()

    def _start(self) -> None:
        if self._session is None or not self._in_sight or self._thread is not None:
            return
        self._stop = threading.Event()
        arguments = (self._session, self._stop)
        # daemon: a kernel restart does not wait for it
        self._thread = threading.Thread(target=self._run, args=arguments, name="ppo_lab viewer", daemon=True)
        self._thread.start()

    # ---- the viewer's thread -----------------------------------------------------------------------------------------

    def _run(self, session: Session, stop: threading.Event) -> None:
        """Play until `stop` is set. An error is shown in the panel and ends only this thread."""
        try:
            while not stop.is_set():  # a new player after a fork, whose environment may be a different one
                trainer = session.trainer
                player = Player(trainer.config, _seed(trainer), "cpu", trainer.env_factory)
                try:
                    _check(trainer, player)
                    self._play(session, trainer, player, stop)
                finally:
                    player.close()
        except Exception as error:
            problem = str(error) if isinstance(error, LabError) else describe_error(error)
            if not stop.is_set():
                self._line.value = f"<b>{escape(f'cannot show the agent: {problem}')}</b>"

    def _play(self, session: Session, trainer: Trainer, player: Player, stop: threading.Event) -> None:
        policies, episode = Policies(session), 1
        thought: Thought | None = None  # of a step that was shown but not taken yet
        scene = Image.new("RGB", SCENE)
        while not stop.is_set() and session.trainer is trainer:
            policy = policies.newest(begins=thought is None)
            if policy is None or self._hold.value:
                stop.wait(NAP)
                continue
            began, cpu = time.perf_counter(), time.thread_time()
            steps, seconds = pace(player.fps * self._speed.value)
            thought, over = _go_on(player, policy, self._choice.value, thought, steps)
            course, note = over or player.course, f"policy of update {policies.update:,}, episode {episode}"
            if over is None:
                scene = player.scene(SCENE)
            else:
                note += ", terminated" if over.terminated else ", truncated"
                seconds, episode = END_SECONDS, episode + 1
            picture = to_png(compose(scene, thought, course.values, len(course.rewards), course.total, note))
            if not stop.is_set():
                self._show_frame(picture, player, trainer)
            thought = None if over is not None else thought
            spent, cost = time.perf_counter() - began, time.thread_time() - cpu
            stop.wait(affordable(seconds, spent, cost, session.running and not session.paused) - spent)

    def _show_frame(self, picture: bytes, player: Player, trainer: Trainer) -> None:
        self._image.value = picture
        text = f"{ABOUT} {GIVEN}" if trainer.envs_given and trainer.env_factory is None else ABOUT
        text = text if player.no_picture is None else f"{text} The environment cannot be rendered: {player.no_picture}."
        if self._line.value != escape(text):
            self._line.value = escape(text)


class Policies:
    """Recent copies of a session's policy, made by the training thread between two updates."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._policy: Policy | None = None
        self.update = 0  # number of the last update before the copy
        self._asked: Future[tuple[Policy, Trainer, int]] | None = None
        self._trainer: Trainer | None = None  # the one it was copied from; a fork has another
        self._since = -math.inf

    def newest(self, begins: bool) -> Policy | None:
        """Return the latest copy, and request a newer one if it is old; None until the first copy is there.

        begins: a new episode begins, where a change of policy is wanted sooner.
        """
        if self._asked is None and self._old(begins):
            self._asked = self._session.soon(self._copy)
        if self._asked is not None and self._asked.done():
            self._policy, self._trainer, self.update = self._asked.result()
            self._asked, self._since = None, time.monotonic()
        return self._policy

    def _old(self, begins: bool) -> bool:
        trainer = self._session.trainer
        if trainer is self._trainer and trainer.state.update == self.update:
            return False
        return time.monotonic() - self._since > (FRESH_SECONDS if not begins else FRESH_SECONDS / 8)

    def _copy(self) -> tuple[Policy, Trainer, int]:
        trainer = self._session.trainer
        policy = trainer.policy()
        if policy.device.type != "cpu":
            policy = Policy(policy.model.cpu())  # keeps batches of one off the GPU that trains
        return policy, trainer, trainer.state.update


def pace(rate: float) -> tuple[int, float]:
    """Return the env steps and the seconds per frame that play `rate` steps per second at no more than MOST_FPS."""
    steps = max(1, math.ceil(rate / MOST_FPS))
    return steps, steps / rate


def affordable(seconds: float, spent: float, cost: float, training: bool) -> float:
    """Return the seconds from one frame to the next: `seconds`, or more so that frames take a small share of a core.

    spent, cost: wall time and CPU time of a frame, in seconds. On a busy machine a thread may be preempted while it
    holds the GIL, and training waits with it: so half of the wall time counts too.
    """
    return max(seconds, max(cost, spent / 2) / (SHARE if training else IDLE_SHARE))


def _go_on(
    player: Player, policy: Policy, deterministic: bool, thought: Thought | None, steps: int
) -> tuple[Thought, Course | None]:
    """Take up to `steps` env steps; return the policy's next `Thought`, and the episode if it is over, else None."""
    if thought is None:
        return _aloud(player, policy, deterministic), None
    for _ in range(steps):
        over = player.act() or (player.begin() if len(player.course.rewards) >= MOST_LENGTH else None)
        if over is not None:
            return thought, over
        thought = _aloud(player, policy, deterministic)
    return thought, None


def _aloud(player: Player, policy: Policy, deterministic: bool) -> Thought:
    thought = player.choose(policy, deterministic, aloud=True)
    assert thought is not None
    return thought


def _check(trainer: Trainer, player: Player) -> None:
    """Raise ConfigError if the trainer was given environments whose spaces differ from those that config.env makes."""
    theirs = (trainer.envs.observation_space, trainer.envs.action_space)
    if trainer.envs_given and theirs != (player.observation_space, player.action_space):
        raise ConfigError(
            f"the trainer was given environments whose spaces differ from those of config.env ({trainer.config.env.id})"
        )


def _seed(trainer: Trainer) -> int:
    """Derive the viewer's seed from the run's."""
    return int(np.random.SeedSequence(trainer.config.run.seed, spawn_key=(2,)).generate_state(1)[0] >> 1)
