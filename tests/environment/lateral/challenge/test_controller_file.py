"""An exported controller drives as the policy does in the environment, from a file that needs NumPy alone."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch

from environment.lateral import driver
from environment.lateral.challenge import controller_file, export_controller
from environment.lateral.challenge.controller_file import import_controller
from environment.lateral.challenge.policy_controller import DEFAULTS
from environment.lateral.rules import cost
from environment.lateral.simulate import noise_draws, simulate
from environment.lateral.surrogate import Surrogate
from environment.lateral_env import CHOICES, VectorizedLateralControlEnv
from ppo_lab.cli.main import main
from ppo_lab.config import Config, ModelConfig
from ppo_lab.config.loading import override
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.evaluation.policy import Policy, load_policy
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.training.trainer import Trainer
from tests.environment.lateral.challenge.official_order import NO_PLAN, FuturePlan, OfficialOrder, State
from tests.environment.lateral.challenge.policies import ACTION_SPACE, make_policy

N = 20


def exactly(policy):
    """The policy in float64: then equal texts give equal numbers on every machine, and no token is another."""
    exact = Policy(policy.model)
    exact.model.double()
    return exact


def costs_in_env(policy, observation, action):
    """Costs (N,), the routes in the order in which the cars drove them, and the last x (N,)."""
    env = VectorizedLateralControlEnv(
        N, segments=(0, N), noise="official", randomise=False, observation=observation, action=action
    )
    obs, done, steered = env.reset(1), False, []
    routes = env.pool.take(env._order.numpy())
    dtype = next(policy.model.parameters()).dtype
    while not done:
        x, _ = policy.act(obs.to(dtype), None, torch.zeros(N, dtype=torch.bool))
        steered.append(x)
        obs, _, terminated, *_ = env.step(x)
        done = bool(terminated.all())
    return env.last_cost, routes, torch.stack(steered)


def costs_of_file(file, routes, rows=None):
    controller = OfficialOrder(import_controller(file).Controller, rows)
    drive = simulate(controller, Surrogate(routes.num_routes), routes, noise_draws(routes, "official"))
    return cost(routes.target, drive.lataccel)


@pytest.mark.parametrize("louder", [1.0, 100.0])
@pytest.mark.parametrize("action", CHOICES["action"])
@pytest.mark.parametrize("observation", driver.SIZES)
def test_costs_are_those_of_the_environment(observation, action, louder, tmp_path):
    policy = make_policy(observation, louder, hidden_sizes=(32, 32))
    file = export_controller(policy, tmp_path / "ppo.py", observation=observation, action=action)
    expected, routes, x = costs_in_env(exactly(policy), observation, action)
    assert (x.abs() > 0.99).any() == (louder > 1)  # it steers hard, or hardly
    for found, wanted in zip(costs_of_file(file, routes), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_costs_in_float32_are_those_of_the_environment_on_nearly_all_routes(tmp_path):
    """Where float32 rounds an answer of the car to the next token, the drive is another one from there on."""
    policy = make_policy(louder=100.0, hidden_sizes=(96, 96))
    file = export_controller(policy, tmp_path / "ppo.py")
    expected, routes, _ = costs_in_env(policy, "compact", "delta")
    found = costs_of_file(file, routes)
    assert (abs(found.total - np.asarray(expected.total)) < 1e-6).sum() >= 0.9 * N


def test_a_route_that_ends_is_the_route_whose_last_row_is_repeated(tmp_path):
    file = export_controller(make_policy(louder=100.0, hidden_sizes=(32,)), tmp_path / "ppo.py")
    routes = VectorizedLateralControlEnv(N, segments=(0, N)).pool
    for rows in (routes.target, routes.roll, routes.v, routes.a):
        rows[505:] = rows[504]
    whole, short = costs_of_file(file, routes), costs_of_file(file, routes, rows=505)
    assert np.array_equal(whole.total, short.total)


def test_it_goes_on_to_the_end_of_a_file(tmp_path):
    """600 rows, as the simulator drives them: the plan gets shorter until it is empty."""
    file = export_controller(make_policy(louder=100.0), tmp_path / "ppo.py")
    car = import_controller(file).Controller()
    for t in range(20, 600):
        plan = FuturePlan(*([0.1] * min(49, 599 - t) for _ in range(4)))
        command = car.update(0.1, 0.0, State(0.1, 0.1, 0.1), plan)
        assert isinstance(command, float)
        assert abs(command) <= 2
    assert plan == NO_PLAN


def test_before_row_100_it_returns_what_it_takes_for_the_steering(tmp_path):
    car = import_controller(export_controller(make_policy(), tmp_path / "ppo.py")).Controller()
    commands = [car.update(1.0, 0.9, State(0.2, 20.0, 0.0), NO_PLAN) for _ in range(81)]
    assert commands[:80] == [pytest.approx(0.8 / 1.62)] * 80
    assert commands[80] != commands[79]


@pytest.mark.parametrize("activation", controller_file.ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", [(), (24,), (24, 16)])
def test_every_activation(activation, hidden_sizes, tmp_path):
    assert_acts_alike(make_policy(louder=30.0, activation=activation, hidden_sizes=hidden_sizes), tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"distribution": "gaussian", "bound": "clip"},
        {"distribution": "gaussian", "std": "state"},
        {"distribution": "gaussian", "std": "gsde"},
        {"distribution": "squashed"},
        {"distribution": "squashed", "std": "gsde"},
        {"distribution": "beta"},
    ],
)
@pytest.mark.parametrize("more", [{}, {"normalize_obs": True, "obs_clip": 1.5}, {"shared": True}])
@pytest.mark.parametrize("louder", [1.0, 1000.0])
def test_every_distribution_with_and_without_normalisation(settings, more, louder, tmp_path):
    assert_acts_alike(make_policy(louder=louder, **settings, **more), tmp_path)


def test_a_beta_that_is_most_certain(tmp_path):
    """Its concentrations end at 10,000."""
    policy = make_policy(louder=1e7, distribution="beta")
    obs = torch.from_numpy(np.random.default_rng(1).uniform(-5, 5, (300, 41)).astype(np.float32))
    certain = policy.model.step(obs, None, torch.zeros(300, dtype=torch.bool))[0]
    assert ((certain.a == 1e4) & (certain.b < 1e4) & (certain.b > 10)).any()
    assert_acts_alike(policy, tmp_path)


def assert_acts_alike(policy, tmp_path):
    network = import_controller(export_controller(policy, tmp_path / "ppo.py")).Network()
    obs = np.random.default_rng(1).uniform(-5, 5, (300, 41)).astype(np.float32)
    np.testing.assert_allclose(network(obs), policy.predict(obs)[:, 0], rtol=0, atol=1e-5)


def test_half_precision_is_compared_in_full(tmp_path):
    policy = make_policy(louder=100.0, precision="bfloat16")
    network = import_controller(export_controller(policy, tmp_path / "ppo.py")).Network()
    obs = np.random.default_rng(1).normal(size=(300, 41)).astype(np.float32)
    np.testing.assert_allclose(network(obs), make_policy(louder=100.0).predict(obs)[:, 0], atol=1e-5)
    assert policy.model.autocast_dtype is torch.bfloat16  # the policy itself stays as it was


def test_the_file_needs_numpy_alone_and_holds_the_text_of_the_driver(tmp_path):
    file = export_controller(make_policy(hidden_sizes=(96, 96)), tmp_path / "ppo.py")
    text = file.read_text()
    assert inspect.getsource(driver) in text
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("." * node.level + (node.module or ""))
    assert modules - set(sys.stdlib_module_names) == {"numpy", "."}
    assert file.stat().st_size < 200_000
    assert max(map(len, text.splitlines())) <= 120
    assert "pickle" not in text


ALONE = """
import importlib.util, json, sys
class OnlyNumpy:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in sys.stdlib_module_names | {"numpy", "controllers"}:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, OnlyNumpy())
sys.path.insert(0, sys.argv[1])
from controllers import BaseController
from controllers.ppo import Controller
from types import SimpleNamespace
car = Controller()
assert isinstance(car, BaseController)
plan = SimpleNamespace(lataccel=[0.3] * 49, roll_lataccel=[0.0] * 49, v_ego=[20.0] * 49, a_ego=[0.0] * 49)
state = SimpleNamespace(roll_lataccel=0.0, v_ego=20.0, a_ego=0.0)
print(json.dumps([car.update(0.2, 0.1, state, plan) for t in range(20, 520)]))
assert "torch" not in sys.modules and "ppo_lab" not in sys.modules
"""


def test_a_fresh_process_with_numpy_alone_drives_the_same(tmp_path):
    place = tmp_path / "controllers"
    place.mkdir()
    (place / "__init__.py").write_text("class BaseController:\n    pass\n")
    file = export_controller(make_policy(louder=100.0), place / "ppo.py")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    car, plan = import_controller(file).Controller(), FuturePlan([0.3] * 49, [0.0] * 49, [20.0] * 49, [0.0] * 49)
    assert json.loads(done.stdout) == [car.update(0.2, 0.1, State(0.0, 20.0, 0.0), plan) for _ in range(20, 520)]


# what cannot be exported


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"core": "gru"}, r"model\.core: a policy with a memory cannot be exported"),
        ({"observation": "full256"}, r"observation 'compact' has shape \(41,\), the policy's \(256,\)"),
        ({"action_space": gymnasium.spaces.Discrete(2)}, r"actions are not those of ppo_lab/LateralControl-v0"),
        ({"action_space": gymnasium.spaces.Box(-2, 2, (1,))}, r"actions are not those of ppo_lab/LateralControl-v0"),
        ({"action_space": gymnasium.spaces.Box(-1, 1, (2,))}, r"actions are not those of ppo_lab/LateralControl-v0"),
    ],
)
def test_what_a_controller_cannot_hold_is_one_line(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as error:
        export_controller(make_policy(**settings), tmp_path / "ppo.py")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_dictionary_and_another_body_are_one_line(tmp_path):
    box = gymnasium.spaces.Box(-5, 5, (41,), np.float32)
    model = ActorCritic(ModelConfig(), gymnasium.spaces.Dict({"one": box}), ACTION_SPACE)
    with pytest.raises(ConfigError, match=r"the policy's of a dictionary"):
        export_controller(Policy(model), tmp_path / "ppo.py")
    policy = make_policy()
    policy.model.actor_body = torch.nn.Sequential(policy.model.actor_body)
    with pytest.raises(ConfigError, match=r"model\.body: Sequential cannot be exported"):
        export_controller(policy, tmp_path / "ppo.py")


def test_unknown_modes_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"observation='big'; allowed are compact, full256"):
        export_controller(make_policy(), tmp_path / "ppo.py", observation="big")
    with pytest.raises(ConfigError, match=r"action='speed'; allowed are delta, absolute, pid_residual"):
        export_controller(make_policy(), tmp_path / "ppo.py", action="speed")


@pytest.mark.parametrize("broken", ["np.tanh(x)", "self.layers[-1]"])
def test_a_file_that_acts_otherwise_is_not_written(broken, tmp_path, monkeypatch):
    def wrong(*arguments):
        return right(*arguments).replace(broken, f"(1.001 * {broken})")

    right = controller_file.controller_text
    monkeypatch.setattr(controller_file, "controller_text", wrong)
    policy = make_policy(louder=100.0)
    policy.model.actor_head.mean.bias += 0.1
    with pytest.raises(RunError, match=r"differs from the policy by .*: nothing was written"):
        export_controller(policy, tmp_path / "ppo.py")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    policy = make_policy()
    policy.model.actor_head.mean.bias += torch.nan
    with pytest.raises(RunError, match="differs from the policy by nan"):
        export_controller(policy, tmp_path / "ppo.py")


# runs


def trained(tmp_path, **overrides):
    settings = {
        "env.id": "ppo_lab/LateralControl-v0", "env.num_envs": 2, "ppo.num_steps": 16, "ppo.total_timesteps": 64,
        "ppo.num_minibatches": 1, "run.root": str(tmp_path), "run.name": "one", "run.tensorboard": False,
        "run.checkpoint_every": 32, **overrides,
    }  # fmt: skip
    trainer = Trainer(override(Config(), settings))
    for _ in trainer:
        pass
    trainer.close()
    return tmp_path / "one"


@pytest.fixture
def run(tmp_path):
    kwargs = {"observation": "full256", "action": "absolute", "segments": [0, 10]}
    return trained(tmp_path, **{"env.kwargs": kwargs, "model.normalize_obs": True})


def test_a_run_knows_how_it_sees_and_steers(run, tmp_path):
    file = export_controller(run, tmp_path / "ppo.py", at=32)
    module = import_controller(file)
    assert (module.OBSERVATION, module.ACTION, module.LAYERS) == ("full256", "absolute", (256, 64, 64, 1))
    assert "from run one after 32 steps." in file.read_text().splitlines()[0]
    obs = np.random.default_rng(1).normal(size=(50, 256)).astype(np.float32)
    np.testing.assert_allclose(module.Network()(obs), load_policy(run, 32).predict(obs)[:, 0], atol=1e-6)
    with pytest.raises(ConfigError, match="are for a policy; a run has them in its config"):
        export_controller(run, tmp_path / "ppo.py", action="delta")


def test_the_command_line(run, tmp_path, capsys):
    file = tmp_path / "ppo.py"
    assert main(["export-controller", str(run), str(file), "--at", "32"]) == 0
    assert f"{file}: the policy of {run} as a controller" in capsys.readouterr().out
    assert "after 32 steps" in file.read_text()
    assert main(["export-controller", str(run), str(tmp_path / "no" / "ppo.py")]) == 1
    assert capsys.readouterr().err.startswith("error: cannot write")


def test_other_runs_are_one_line(tmp_path):
    folder = trained(tmp_path, **{"env.id": "CartPole-v1"})
    with pytest.raises(RunError, match="one was trained on CartPole-v1; a lateral controller comes from"):
        export_controller(folder, tmp_path / "ppo.py")
    with pytest.raises(RunError, match="no run at"):
        export_controller(tmp_path / "none", tmp_path / "ppo.py")


def test_a_run_with_other_eyes_is_one_line(tmp_path):
    folder = trained(tmp_path, **{"env.kwargs": {"segments": [0, 10]}, "env.frame_stack": 2})
    with pytest.raises(RunError, match=r"one was trained with env\.wrappers, frame_stack"):
        export_controller(folder, tmp_path / "ppo.py")


def test_the_environment_has_the_same_defaults():
    parameters = inspect.signature(VectorizedLateralControlEnv).parameters
    assert {key: parameters[key].default for key in DEFAULTS} == DEFAULTS
