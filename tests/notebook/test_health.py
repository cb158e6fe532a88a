"""The rules of the Health panel: each fires just past its threshold, not before it, and not in healthy runs."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ppo_lab.config import SECTIONS, PPOConfig
from ppo_lab.config.loading import load_config
from ppo_lab.notebook.data.history import History
from ppo_lab.notebook.health import OUTCOMES, RULES, Finding, as_html, as_markdown, examine
from ppo_lab.notebook.health.signals import running_median, since
from ppo_lab.notebook.live.contents import dials, entropy_scale, health
from ppo_lab.notebook.live.session import Session
from ppo_lab.training.trainer import Trainer
from tests.notebook.fakes import Silent
from tests.notebook.fakes import trainer as small_trainer

ROOT = Path(__file__).resolve().parent.parent.parent
U = 60  # updates
STEPS = 1000  # an update
PPO = PPOConfig(total_timesteps=U * STEPS, update_epochs=6, num_minibatches=4)
RAMP = np.linspace(0.0, 1.0, U)
LN2 = np.log(2.0)


def columns(**changes):
    """Create the metrics of a healthy run of 60 updates. changes: metric ("/" as "__") -> a number or an array."""
    healthy = {
        "update": np.arange(1, U + 1),
        "global_step": STEPS * np.arange(1, U + 1),
        "update/approx_kl": 0.01,
        "update/clip_fraction": 0.1,
        "update/grad_norm": 5.0,
        "update/explained_variance": 0.9,
        "update/gradient_steps": 24.0,
        "update/learning_rate": 3e-3,
        "update/critic_learning_rate": 3e-3,
        "update/clip_coef": 0.2,
        "update/ent_coef": 0.0,
        "loss/value": 5.0,
        "loss/entropy": LN2 * (0.98 - 0.6 * RAMP),
        "episode/return_mean": 20.0 + 400.0 * RAMP,
        "episode/return_std": 40.0,
        "episode/count": 60 * np.arange(1, U + 1),
    }
    given = {name.replace("__", "/"): value for name, value in changes.items()}
    return {name: np.broadcast_to(value, U).astype(float) for name, value in {**healthy, **given}.items()}


def found(columns, ppo=PPO, num_actions=2, **others):
    """Return rule -> severity of the findings."""
    return {finding.rule: finding.severity for finding in examine(columns, ppo, num_actions, **others)}


def after(row, value, before):
    """Return `before` up to a row, and `value` from that row on, (U,)."""
    return np.where(np.arange(U) < row, before, value)


FLAT = 20.0 + np.zeros(U)  # never rises
RISING = 20.0 + 10.0 * np.arange(U)
RISEN = np.minimum(20.0 + 40.0 * np.arange(U), 420.0)  # rises for ten updates

# rule, severity, columns in which it just fires, columns in which it just does not, settings
CASES = [
    ("policy-leaps", "warning", {"update__approx_kl": 0.052}, {"update__approx_kl": 0.048}, {}),
    ("policy-leaps", "note", {"update__approx_kl": 0.021}, {"update__approx_kl": 0.019}, {}),
    ("policy-leaps", "warning", {"update__approx_kl": 0.31}, {"update__approx_kl": 0.29}, {"target_kl": 0.1}),
    ("policy-leaps", "note", {"update__approx_kl": 0.16}, {"update__approx_kl": 0.14}, {"target_kl": 0.1}),
    ("clipped-often", "warning", {"update__clip_fraction": 0.31}, {"update__clip_fraction": 0.29}, {}),
    ("clipped-often", "note", {"update__clip_fraction": 0.21}, {"update__clip_fraction": 0.19}, {}),
    ("entropy-collapsed", "warning", {"loss__entropy": 0.048 * LN2, "episode__return_mean": FLAT},
     {"loss__entropy": 0.052 * LN2, "episode__return_mean": FLAT}, {}),
    ("entropy-collapsed", "note", {"loss__entropy": 0.048 * LN2}, {"loss__entropy": 0.052 * LN2}, {}),
    ("entropy-stuck", "warning", {"loss__entropy": 0.82 * LN2, "episode__return_mean": FLAT},
     {"loss__entropy": 0.78 * LN2, "episode__return_mean": FLAT}, {}),
    ("entropy-stuck", "note", {"loss__entropy": 0.82 * LN2}, {"loss__entropy": LN2 * (0.99 - 0.1 * RAMP)}, {}),
    ("policy-still", "warning", {"update__approx_kl": 0.9e-5, "episode__return_mean": FLAT},
     {"update__approx_kl": 1.1e-5, "episode__return_mean": FLAT}, {}),
    ("policy-still", "note", {"update__approx_kl": 0.9e-5}, {"update__approx_kl": 1.1e-5}, {}),
    ("learning-rate-zero", "warning", {"update__learning_rate": 0.9e-6}, {"update__learning_rate": 1.1e-6}, {}),
    ("learning-rate-zero", "warning", {"update__critic_learning_rate": 0.0}, {}, {"critic_learning_rate": 0.0}),
    ("learning-rate-zero", "note", {"update__learning_rate": after(50, 0.9e-6, 3e-3)}, {},
     {"learning_rate_schedule": "linear"}),
    ("early-stop-always", "warning", {"update__gradient_steps": 5.0}, {"update__gradient_steps": 6.0},
     {"target_kl": 0.01}),
    ("early-stop-always", "note", {"update__gradient_steps": 11.0}, {"update__gradient_steps": 12.0},
     {"target_kl": 0.01}),
    ("critic-worse-than-mean", "warning", {"update__explained_variance": -0.11, "episode__return_mean": FLAT},
     {"update__explained_variance": -0.09, "episode__return_mean": FLAT}, {}),
    ("critic-worse-than-mean", "note", {"update__explained_variance": -0.11}, {"update__explained_variance": -0.09},
     {}),
    ("critic-guesses", "warning", {"update__explained_variance": 0.29, "episode__return_mean": FLAT},
     {"update__explained_variance": 0.31, "episode__return_mean": FLAT}, {}),
    ("critic-guesses", "note", {"update__explained_variance": 0.49}, {"update__explained_variance": 0.51}, {}),
    ("nothing-to-predict", "warning", {"update__explained_variance": np.nan}, {"update__explained_variance": 0.9}, {}),
    ("nothing-to-predict", "warning", {"update__explained_variance": -1e14}, {"update__explained_variance": -9e5}, {}),
    ("value-loss-exploding", "warning", {"loss__value": after(40, 51.0, 5.0), "update__explained_variance": -0.01},
     {"loss__value": after(40, 49.0, 5.0), "update__explained_variance": -0.01}, {}),
    ("gradients-clipped", "warning", {"update__grad_norm": 505.0}, {"update__grad_norm": 495.0}, {}),
    ("gradients-clipped", "note", {"update__grad_norm": 51.0}, {"update__grad_norm": 49.0}, {}),
    ("steps-called-off", "warning", {"update__skipped_steps": 12.5}, {"update__skipped_steps": 11.5}, {}),
    ("learning-rate-zero", "warning", {"update__learning_rate": 1e-6}, {"update__learning_rate": 1.1e-6},
     {"learning_rate_schedule": "adaptive"}),
    ("policy-leaps", "warning", {"update__approx_kl": 0.21}, {"update__approx_kl": 0.19},
     {"learning_rate_schedule": "adaptive", "desired_kl": 0.05}),
    ("policy-leaps", "note", {"update__approx_kl": 0.11}, {"update__approx_kl": 0.09},
     {"learning_rate_schedule": "adaptive", "desired_kl": 0.05}),
    ("no-episode", "warning", dict.fromkeys(("episode__return_mean", "episode__return_std", "episode__count"), np.nan),
     {}, {}),
    ("never-better", "warning", {"episode__return_mean": 20.0 + 20.0 * RAMP}, {"episode__return_mean": 20 + 40 * RAMP},
     {}),
    ("never-better", "note", {"episode__return_mean": FLAT}, {"episode__return_mean": 20 + 40 * RAMP},
     {"total_timesteps": 3 * U * STEPS}),
    ("returns-collapsed", "warning", {"episode__return_mean": after(40, 210.0, RISING)},
     {"episode__return_mean": after(40, 220.0, RISING)}, {}),
    ("returns-flat", "note", {"episode__return_mean": RISEN}, {"episode__return_mean": RISEN + 30 * RAMP}, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "severity", "bad", "good", "settings"), CASES, ids=[f"{i}-{c[0]}-{c[1]}" for i, c in enumerate(CASES)]
)
def test_a_rule_fires_past_its_bound_and_is_silent_before_it(rule, severity, bad, good, settings):
    ppo = PPO.model_copy(update=settings)
    assert found(columns(**bad), ppo)[rule] == severity
    assert found(columns(**good), ppo).get(rule) != severity


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES} == RULES.keys() - {"policy-jumped"}  # it has separate tests below


def test_a_healthy_run_has_no_finding():
    assert found(columns()) == {}
    assert found(columns(update__explained_variance=1.0)) == {}


# ---- one update with a large KL --------------------------------------------------------------------------------------


def jump(size, row=10, returns=FLAT):
    return columns(update__approx_kl=np.where(np.arange(U) == row, size, 0.01), episode__return_mean=returns)


def test_a_jump_is_a_warning_while_the_return_has_not_come_back():
    fallen = after(11, 5.0, 20.0 + 10.0 * np.arange(U))
    findings = {finding.rule: finding for finding in examine(jump(0.51, returns=fallen), PPO, 2)}
    assert findings["policy-jumped"].severity == "warning"
    assert findings["policy-jumped"].since == 11 * STEPS
    assert "0.51" in findings["policy-jumped"].what
    assert "policy-jumped" not in found(jump(0.49, returns=fallen))


def test_a_jump_that_did_no_harm_is_a_note_and_then_forgotten():
    rising = 20.0 + 400.0 * RAMP
    assert found(jump(0.51, row=U - 20, returns=rising))["policy-jumped"] == "note"
    assert "policy-jumped" not in found(jump(0.51, row=U - 21, returns=rising))


def test_two_jumps_are_told_from_the_first_on():
    kl = np.where(np.isin(np.arange(U), (5, 15)), (0.6 + 0.1 * RAMP), 0.01)
    run = columns(update__approx_kl=kl, episode__return_mean=after(16, 5.0, RISING))
    finding = examine(run, PPO, 2)[0]
    assert (finding.rule, finding.since) == ("policy-jumped", 6 * STEPS)
    assert "2 updates moved the policy by a KL of up to 0.63" in finding.what
    assert "the 170 it had" in finding.what


def test_many_jumps_are_leaps():
    rules = found(columns(update__approx_kl=1.0))
    assert "policy-leaps" in rules
    assert "policy-jumped" not in rules


# ---- when a rule stays silent ----------------------------------------------------------------------------------------


STILL = {"update__approx_kl": 1e-7, "episode__return_mean": FLAT}
CAUSES = [  # the rule that fires, the rule it silences, columns, settings
    ("early-stop-always", "policy-still", {**STILL, "update__gradient_steps": 2.0}, {"target_kl": 0.01}),
    ("entropy-collapsed", "policy-still", {**STILL, "loss__entropy": 0.01}, {}),
    ("learning-rate-zero", "policy-still", {**STILL, "update__learning_rate": 1e-8}, {}),
    ("critic-worse-than-mean", "critic-guesses", {"update__explained_variance": -0.5}, {}),
    ("nothing-to-predict", "critic-worse-than-mean", {"update__explained_variance": -1e14}, {}),
    ("nothing-to-predict", "critic-guesses", {"update__explained_variance": -1e14}, {}),
    ("returns-collapsed", "never-better", {"episode__return_mean": after(12, 5.0, 200.0)}, {}),
    ("never-better", "returns-flat", {"episode__return_mean": FLAT}, {}),
    (None, "returns-flat", {"episode__return_mean": FLAT}, {"total_timesteps": 10 * U * STEPS}),
]


@pytest.mark.parametrize(("cause", "silent", "changes", "settings"), CAUSES)
def test_what_follows_from_another_finding_is_not_said_too(cause, silent, changes, settings):
    rules = found(columns(**changes), PPO.model_copy(update=settings))
    assert cause is None or cause in rules
    assert silent not in rules


def test_a_run_without_a_critic_has_nothing_to_predict_wrongly():
    assert found(columns(update__explained_variance=np.nan, loss__value=np.nan)) == {}


def test_a_policy_may_be_decided_where_its_return_is_highest():
    for lost, severity in [(20.0, "note"), (40.0, "warning")]:  # of the 280 that were learned
        run = columns(loss__entropy=0.01 * LN2, episode__return_mean=RISEN - after(40, lost, 0.0))
        assert found(run)["entropy-collapsed"] == severity


def test_a_critic_is_not_blamed_where_there_is_nothing_left_to_predict():
    blind = {"update__explained_variance": after(20, 0.0, 0.9), "episode__return_mean": RISEN}
    assert found(columns(**blind))["critic-guesses"] == "warning"
    assert "critic-guesses" not in found(columns(**blind, loss__value=after(20, 0.4, 5.0)))
    assert "critic-guesses" in found(columns(**blind, loss__value=after(20, 0.6, 5.0)))
    worse = {"update__explained_variance": after(20, -0.5, 0.9), "episode__return_mean": RISEN}
    assert "critic-worse-than-mean" in found(columns(**worse))
    assert "critic-worse-than-mean" not in found(columns(**worse, loss__value=after(20, 0.7, 5.0)))


def test_a_critic_has_time_to_begin():
    for row, early in [(17, False), (18, True)]:
        run = columns(update__explained_variance=after(row, 0.9, -1.0))
        ever = {rule for updates in range(1, U + 1) for rule in found(first(run, updates))}
        assert ("critic-worse-than-mean" in ever) == early
        assert "critic-guesses" not in ever


def test_perfect_episodes_are_no_plateau_and_no_equal_returns():
    assert "returns-flat" not in found(columns(episode__return_mean=RISEN, episode__return_std=0.0))
    equal = {"update__explained_variance": np.nan, "episode__return_std": 0.0}
    assert "nothing-to-predict" not in found(columns(**equal))


def test_early_stops_need_a_target_and_many_steps_left():
    assert "early-stop-always" not in found(columns(update__gradient_steps=1.0))


def test_a_rate_that_runs_out_by_schedule_is_not_called_still():
    rate = 3e-3 * (1.0 - 0.95 * RAMP)
    still = {"update__approx_kl": after(30, 1e-6, 0.01), "episode__return_mean": FLAT}
    assert "policy-still" in found(columns(**still))
    assert "policy-still" not in found(columns(**still, update__learning_rate=rate))


def test_a_rate_that_warms_up_is_not_zero():
    assert "learning-rate-zero" not in found(columns(update__learning_rate=9e-7 * (RAMP + 0.01)))


def test_a_value_loss_that_grows_with_the_returns_is_no_explosion():
    assert "value-loss-exploding" not in found(columns(loss__value=after(40, 500.0, 5.0)))


def test_few_episodes_are_no_mean():
    noisy = columns(episode__return_mean=after(2, 20.0, 300.0), episode__count=np.arange(1, U + 1) + 15)
    assert "returns-collapsed" not in found(noisy)


def test_the_short_episodes_that_end_first_are_not_the_beginning():
    """Check that a rise from the first mean is not counted: it is too low, because short episodes end first."""
    rules = found(columns(episode__return_mean=after(2, 40.0, 20.0), episode__return_std=25.0))
    assert rules["never-better"] == "warning"


def test_what_was_learned_in_the_first_updates_counts():
    fast = columns(episode__return_mean=RISEN, episode__count=20 + np.arange(U), episode__return_std=80.0)
    assert "never-better" not in found(fast)


def test_first_episodes_that_differ_by_more_than_there_is_to_gain():
    """Use returns in which some early episodes are a hundred times worse than the others, with 0 as the best return."""
    mean = np.concatenate([np.geomspace(-20_000, -6_000, 10), np.geomspace(-5_000, -300, 20), np.full(30, -250.0)])
    wild = {"episode__return_mean": mean, "episode__count": 20 + 8 * np.arange(U)}
    learned = columns(**wild, episode__return_std=np.where(mean < -300, 25_000.0, 200.0))
    assert "never-better" not in found(learned)
    assert found(columns(**wild, episode__return_std=25_000.0))["never-better"] == "warning"


# ---- continuous actions ---------------------------------------------------------------------------------------------


def gaussian(std, dims=1):
    """Return the entropy of `dims` independent normal distributions, in nats."""
    return dims * (np.log(std) + 0.5 * np.log(2 * np.pi * np.e))


@pytest.mark.parametrize("dims", [1, 6])
def test_the_std_of_a_continuous_policy(dims):
    flat = {"episode__return_mean": FLAT}
    for std, expected in [(0.048, "entropy-collapsed"), (0.052, None), (1.95, None), (2.05, "entropy-stuck")]:
        run = columns(loss__entropy=gaussian(after(5, std, 1.0), dims), **flat)
        rules = found(run, num_actions=None).keys() & {"entropy-collapsed", "entropy-stuck"}
        assert rules == ({expected} if expected else set()), f"std {std}"


def test_an_entropy_without_known_dimensions_says_nothing():
    narrow = columns(loss__entropy=gaussian(0.1, dims=17), episode__return_mean=FLAT)
    assert "entropy-collapsed" not in found(narrow, num_actions=None)
    assert "entropy-collapsed" not in found(narrow, num_actions=None, action_dims=17)
    assert found(narrow, num_actions=None, action_dims=1)["entropy-collapsed"] == "warning"
    between = columns(loss__entropy=2.125, episode__return_mean=FLAT)  # one dimension of std 2.03, or two of 0.7
    assert "entropy-stuck" not in found(between, num_actions=None)
    assert "entropy-stuck" in found(between, num_actions=None, action_dims=1)


# ---- what the entropy is measured against -------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.1, 2.0, 200.0])
def test_the_entropy_of_a_box_in_its_own_units_is_shifted_back(width):
    """Check that a policy as wide as its Box, of any width, counts neither as collapsed nor as stuck."""
    uniform = 2 * np.log(width)
    run = columns(loss__entropy=uniform, episode__return_mean=FLAT)
    shift = 2 * np.log(width / 2)
    assert not found(run, num_actions=None, action_dims=2, entropy_shift=shift).keys() & {
        "entropy-collapsed",
        "entropy-stuck",
    }
    narrow = columns(loss__entropy=gaussian(0.04, 2) + shift, episode__return_mean=FLAT)
    assert found(narrow, num_actions=None, action_dims=2, entropy_shift=shift)["entropy-collapsed"] == "warning"


def test_an_entropy_without_a_scale_says_nothing():
    for entropy in (0.001, gaussian(0.01), gaussian(3.0, 2)):
        run = columns(loss__entropy=after(3, entropy, gaussian(1.0)), episode__return_mean=FLAT)
        assert not found(run, num_actions=None, action_dims=0).keys() & {"entropy-collapsed", "entropy-stuck"}


SPACES = {"env.id": "ppo_lab/Spaces-v0"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (2, None, 0.0)),
        ({"env.id": "Pendulum-v1"}, (None, 1, 0.0)),
        ({"env.id": "Pendulum-v1", "model.distribution": "beta"}, (None, 1, np.log(2))),
        ({"env.id": "Pendulum-v1", "model.bound": "clip"}, (None, 1, np.log(2))),
        ({**SPACES, "env.kwargs": {"action": "box_asymmetric"}, "model.distribution": "squashed"},
         (None, 2, 2 * np.log(100))),
        ({**SPACES, "env.kwargs": {"action": "multidiscrete"}}, (6, None, 0.0)),
        ({**SPACES, "env.kwargs": {"action": "multibinary"}}, (8, None, 0.0)),
        ({**SPACES, "env.kwargs": {"action": "hybrid"}}, (None, 0, 0.0)),
        ({**SPACES, "env.kwargs": {"masked": True}}, (None, 0, 0.0)),
    ],
)  # fmt: skip
def test_the_scale_of_an_entropy_follows_from_the_action_space(settings, expected):
    ours = small_trainer(2, **settings)
    scale = entropy_scale(ours)
    assert (scale.num_actions, scale.action_dims) == expected[:2]
    assert scale.entropy_shift == pytest.approx(expected[2])
    ours.close()


@pytest.mark.parametrize(
    "settings",
    [
        {**SPACES, "env.kwargs": {"action": "multibinary"}},
        {**SPACES, "env.kwargs": {"action": "box_asymmetric"}, "model.distribution": "beta"},
        {**SPACES, "env.kwargs": {"action": "box_asymmetric"}, "model.distribution": "squashed"},
        {**SPACES, "env.kwargs": {"action": "hybrid", "masked": True}, "model.std": "gsde"},
        {"env.id": "ppo_lab/Recall-v0", "model.core": "gru", "model.core_size": 8, "ppo.chunk_length": 16,
         "ppo.num_minibatches": 16, "ppo.target_kl": 0.5},
        {"ppo.learning_rate_schedule": "adaptive", "ppo.desired_kl": 0.02},
    ],
)  # fmt: skip
def test_a_run_that_has_just_begun_is_not_found_ill(settings):
    """Check that the random policy of a new run does not count as collapsed, and no update as stopped early."""
    session = Session(small_trainer(12, **settings))
    session.train_here(Silent())
    rules = {finding.rule for finding in health(session)}
    assert not rules & {"entropy-collapsed", "early-stop-always", "learning-rate-zero", "policy-leaps"}
    dials(session)


def test_fewer_chunks_than_minibatches_are_no_early_stop():
    few = {"update__gradient_steps": 6.0}  # 6 epochs of one chunk
    ppo = PPO.model_copy(update={"target_kl": 0.01})
    assert found(columns(**few), ppo)["early-stop-always"] == "note"
    assert "early-stop-always" not in found(columns(**few), ppo, chunks=1)
    assert "early-stop-always" in found(columns(update__gradient_steps=2.0), ppo, chunks=1)


def test_advice_names_the_dial_that_steers():
    steered = PPO.model_copy(update={"learning_rate_schedule": "adaptive"})
    (finding,) = examine(columns(update__approx_kl=0.3), steered, 2)
    assert "ppo.desired_kl" in finding.advice
    assert "ppo.learning_rate`" not in finding.advice
    held = PPO.model_copy(update={"target_entropy": 0.6})
    stuck = columns(loss__entropy=0.9 * LN2, update__ent_coef=0.1, episode__return_mean=FLAT)
    advice = {finding.rule: finding.advice for finding in examine(stuck, held, 2)}["entropy-stuck"]
    assert "ppo.target_entropy" in advice


def test_a_rate_that_adapts_downwards_is_not_called_still_or_zero():
    rate = 3e-3 * 0.8 ** np.arange(U)
    still = {"update__approx_kl": after(30, 1e-6, 0.01), "episode__return_mean": FLAT}
    ppo = PPO.model_copy(update={"learning_rate_schedule": "adaptive"})
    rules = found(columns(**still, update__learning_rate=np.maximum(rate, 2e-6)), ppo)
    assert not rules.keys() & {"policy-still", "learning-rate-zero"}


# ---- patience -------------------------------------------------------------------------------------------------------


def first(columns, updates):
    return {name: values[:updates] for name, values in columns.items()}


def test_the_first_updates_say_little():
    for _, _, bad, _, settings in CASES:
        for updates in range(6):
            assert found(first(columns(**bad), updates), PPO.model_copy(update=settings)) == {}


def test_a_few_odd_updates_are_no_finding():
    for row in range(U - 4):
        odd = columns(update__clip_fraction=np.where(abs(np.arange(U) - row - 2) < 2, 0.9, 0.1))
        assert "clipped-often" not in found(odd)


def test_since_is_when_it_began():
    findings = examine(columns(update__clip_fraction=after(30, 0.6, 0.1)), PPO, 2)
    assert [(finding.rule, finding.since) for finding in findings] == [("clipped-often", 31 * STEPS)]


def test_what_wavers_around_a_bound_does_not_flicker():
    shown = raw = 0
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(0.2, 0.05, U)
        run = columns(update__clip_fraction=noise)
        said = [found(first(run, updates)).get("clipped-often") for updates in range(1, U + 1)]
        shown += sum(a != b for a, b in pairwise(said))
        raw += sum(a != b for a, b in pairwise(noise > 0.2))
    assert shown < raw / 6


def test_since_holds_until_it_has_not_for_five_in_a_row():
    def rows(text):
        return np.array([letter == "x" for letter in text], dtype=bool)

    assert since(rows("")) is None
    assert since(rows("xxxx")) is None
    assert since(rows("..xxxxx")) == 2
    assert since(rows("..xxxxx....")) == 2
    assert since(rows("..xxxxx.....")) is None
    assert since(rows("xxxxx.....xxxxx")) == 10
    assert since(rows("xxxxxxx"), patience=8) is None


def test_the_running_median_passes_over_gaps():
    values = np.array([1.0, np.nan, 2.0, 3.0, 4.0, 100.0, np.nan, 5.0])
    np.testing.assert_array_equal(running_median(values), [np.nan] * 5 + [3.0, 3.0, 4.0])
    assert np.isnan(running_median(np.array([1.0, 2.0]))).all()


# ---- odd input ------------------------------------------------------------------------------------------------------


def test_columns_that_are_missing_or_not_finite_are_no_finding_and_no_error():
    assert examine({}, PPO) == []
    whole = columns()
    for name in whole.keys() - {"global_step", "update", "update/explained_variance"}:
        rules = found({key: values for key, values in whole.items() if key != name})
        assert rules.keys() <= {"no-episode"}
    for value in (np.nan, np.inf):
        broken = {
            name: values if name in ("global_step", "update") else np.full(U, value) for name, values in whole.items()
        }
        assert found(broken).keys() <= {"no-episode"}
    assert found(columns(), num_actions=1) == {}


def test_settings_in_force_are_named_where_the_run_recorded_them():
    leaps = columns(update__approx_kl=0.3, update__clip_coef=after(10, 5.0, 0.2))
    (finding,) = (finding for finding in examine(leaps, PPO, 2) if finding.rule == "policy-leaps")
    assert "`ppo.clip_coef` is 5" in finding.advice
    stuck = columns(loss__entropy=LN2, update__ent_coef=after(10, 0.5, 0.0))
    (finding,) = (finding for finding in examine(stuck, PPO, 2) if finding.rule == "entropy-stuck")
    assert "0.5 now" in finding.advice


def test_a_leash_that_is_too_short_gets_other_advice():
    for kl, advice in [(1e-5, "raise `ppo.clip_coef`"), (0.01, "lower `ppo.learning_rate`")]:
        findings = examine(columns(update__clip_fraction=0.5, update__approx_kl=kl), PPO, 2)
        assert advice in next(finding.advice for finding in findings if finding.rule == "clipped-often")


def test_every_key_an_advice_names_exists():
    for _, _, bad, _, settings in CASES:
        for finding in examine(columns(**bad), PPO.model_copy(update=settings), 2):
            for section, key in re.findall(r"`(\w+)\.(\w+)`", finding.advice + finding.what):
                assert key in SECTIONS[section].model_fields, finding.advice


# ---- order and text -------------------------------------------------------------------------------------------------


def test_warnings_come_first_then_causes_then_what_began_earlier():
    findings = examine(
        columns(update__approx_kl=after(30, 0.1, 0.01), update__clip_fraction=after(20, 0.25, 0.1),
                update__grad_norm=600.0, episode__return_mean=after(12, 5.0, 200.0 + 20.0 * np.arange(U))),
        PPO, 2,
    )  # fmt: skip
    assert [finding.rule for finding in findings] == [
        "gradients-clipped", "policy-leaps", "returns-collapsed", "clipped-often",
    ]  # fmt: skip
    assert set(OUTCOMES) <= RULES.keys()


FINDING = Finding("policy-leaps", "warning", "1 < 2 & a_b `c_d` [x](y).", 12_345, "lower `ppo.learning_rate`.")


def test_findings_as_markdown():
    text = as_markdown([FINDING])
    assert text.startswith("**1 thing looks wrong.**\n\n- **Warning: policy leaps** since step 12,345. ")
    assert r"1 \< 2 & a\_b `c_d` \[x\](y)." in text
    assert "[More](../docs/troubleshooting.md#policy-leaps)" in text


def test_findings_as_html():
    text = as_html([FINDING, FINDING])
    assert "<b>2 things look wrong.</b>" in text
    assert "1 &lt; 2 &amp; a_b <code>c_d</code>" in text
    assert '<a href="../docs/troubleshooting.md#policy-leaps" target="_blank">' in text


def test_nothing_wrong_says_what_was_looked_at():
    for text in (as_markdown([]), as_html([])):
        assert "Nothing looks wrong." in text
        assert "KL, clip fraction, entropy" in text
    note = Finding("returns-flat", "note", "x.", 1, "y.")
    assert "Nothing looks wrong." in as_markdown([note])
    assert "Note: returns flat" in as_markdown([note])


def anchor(heading):
    """Convert a heading to its anchor as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_every_rule_has_its_section_and_every_section_its_rule():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    dials = text.split("\n## The dials")[1].split("\n## ")[0]
    anchors = [anchor(heading) for heading in re.findall(r"^### (.+)$", dials, re.MULTILINE)]
    assert sorted(anchors) == sorted(RULES)
    everywhere = [anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    assert len(set(everywhere)) == len(everywhere)  # a heading that occurs twice would get another anchor


def test_what_the_page_names_exists():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors
    for section, key in re.findall(r"`(ppo|env|model|run)\.(\w+)", text):
        assert key in SECTIONS[section].model_fields, f"{section}.{key}"


# ---- trained runs -------------------------------------------------------------------------------------------------


def train(preset, **overrides):
    settings = {"run.root": None, **{key.replace("__", "."): value for key, value in overrides.items()}}
    config = load_config(ROOT / "config.yaml", preset=preset, overrides=settings)
    trainer, history = Trainer(config), History()
    for update in trainer:
        history.append(update)
    trainer.close()
    return history.columns(), config.ppo


SMALL = {"env__num_envs": 32, "ppo__num_steps": 32, "ppo__update_epochs": 2, "ppo__num_minibatches": 2}
BROKEN = {  # rule -> settings that break the preset cartpole, number of updates
    "learning-rate-zero": ({"ppo__learning_rate": 0.0, **SMALL}, 12),
    "early-stop-always": ({"ppo__target_kl": 1e-5, **SMALL, "ppo__update_epochs": 6}, 20),
    "nothing-to-predict": ({"ppo__gamma": 0.0, **SMALL}, 12),
    "clipped-often": ({"ppo__clip_coef": 1e-4, **SMALL}, 12),
}
BROKEN_LONGER = {
    "gradients-clipped": ({"ppo__max_grad_norm": 1e-6}, 26),
    "entropy-stuck": ({"ppo__ent_coef": 3.0}, 40),
    "policy-jumped": ({"ppo__learning_rate": 1.0}, 20),
    "entropy-collapsed": ({"ppo__learning_rate": 1.0}, 20),
    "returns-collapsed": ({"ppo__learning_rate": 1.0}, 20),
    "policy-leaps": ({"ppo__clip_coef": 5.0, "ppo__update_epochs": 20}, 12),
    "policy-still": ({"ppo__learning_rate": 3e-6, "ppo__learning_rate_schedule": "constant"}, 26),
    "critic-guesses": ({"ppo__vf_coef": 0.0}, 50),
    "never-better": ({"ppo__learning_rate": 1e-7}, 32),
}


def broken(overrides, updates, seed=1):
    steps = 1024 if "env__num_envs" in overrides else 2048
    return found(*train("cartpole", **overrides, ppo__total_timesteps=updates * steps, run__seed=seed))


@pytest.mark.parametrize("rule", BROKEN)
def test_a_run_that_was_broken_on_purpose_is_found(rule):
    assert broken(*BROKEN[rule])[rule] == "warning"


# Of ten seeds 8 jump and 9 collapse; the other rules fire for all ten. critic-guesses is a note if the return climbs.
LUCK = {"policy-jumped": 2, "returns-collapsed": 2}  # number of five seeds for which the rule has to fire


@pytest.mark.slow
@pytest.mark.parametrize("rule", BROKEN_LONGER)
def test_a_longer_run_that_was_broken_on_purpose_is_found(rule):
    severities = [broken(*BROKEN_LONGER[rule], seed).get(rule) for seed in range(1, 6)]
    counted = ("warning", "note") if rule == "critic-guesses" else ("warning",)
    assert sum(severity in counted for severity in severities) >= LUCK.get(rule, 4), severities


def test_a_run_without_a_finished_episode_is_found():
    run = train("pendulum", ppo__num_steps=16, ppo__total_timesteps=12 * 128, ppo__update_epochs=1)
    assert found(*run, num_actions=None) == {"no-episode": "note"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["cartpole", "pendulum", "acrobot"])
def test_a_healthy_run_raises_no_warning_at_any_time(preset):
    """Check that at most one seed of five (three for slower presets) has a warning; of fifteen of cartpole none had."""
    steps = {"cartpole": 150_000, "pendulum": 80_000, "acrobot": 120_000}[preset]
    num_actions = {"cartpole": 2, "pendulum": None, "acrobot": 3}[preset]
    warned = []
    for seed in range(1, 6 if preset == "cartpole" else 4):
        run, ppo = train(preset, run__seed=seed, ppo__total_timesteps=steps)
        for updates in range(1, len(run["update"]) + 1):
            warnings = [x for x in examine(first(run, updates), ppo, num_actions) if x.severity == "warning"]
            if warnings:
                warned.append(f"seed {seed}, after {updates} updates: {warnings}")
                break
    assert len(warned) <= 1, warned
