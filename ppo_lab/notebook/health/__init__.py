"""The health of a run: rules that read its metrics and report what is wrong, since when, and what to try.

    findings = examine(session.history, config.ppo, num_actions=2)
    print(as_markdown(findings))

The thresholds are rules of thumb, set so that the presets train without a warning and broken runs do not.
docs/troubleshooting.md has a section for every rule.
"""

from __future__ import annotations

from collections.abc import Callable

from ppo_lab.config import PPOConfig
from ppo_lab.notebook.health.finding import Finding, as_html, as_markdown
from ppo_lab.notebook.health.learning import (
    critic_guesses,
    critic_worse_than_mean,
    gradients_clipped,
    nothing_to_predict,
    steps_called_off,
    value_loss_exploding,
)
from ppo_lab.notebook.health.policy import (
    clipped_often,
    early_stop_always,
    entropy_collapsed,
    entropy_stuck,
    learning_rate_zero,
    policy_jumped,
    policy_leaps,
    policy_still,
)
from ppo_lab.notebook.health.returns import never_better, no_episode, returns_collapsed, returns_flat
from ppo_lab.notebook.health.signals import Signals, Verdict
from ppo_lab.notebook.plots.canvas import Columns

__all__ = ["RULES", "Finding", "as_html", "as_markdown", "examine"]

# name of the rule (also the anchor of its section in docs/troubleshooting.md) -> function
RULES: dict[str, Callable[[Signals], Verdict | None]] = {
    "policy-leaps": policy_leaps,
    "policy-jumped": policy_jumped,
    "clipped-often": clipped_often,
    "entropy-collapsed": entropy_collapsed,
    "entropy-stuck": entropy_stuck,
    "policy-still": policy_still,
    "learning-rate-zero": learning_rate_zero,
    "early-stop-always": early_stop_always,
    "critic-worse-than-mean": critic_worse_than_mean,
    "critic-guesses": critic_guesses,
    "nothing-to-predict": nothing_to_predict,
    "value-loss-exploding": value_loss_exploding,
    "gradients-clipped": gradients_clipped,
    "steps-called-off": steps_called_off,
    "no-episode": no_episode,
    "never-better": never_better,
    "returns-collapsed": returns_collapsed,
    "returns-flat": returns_flat,
}
OUTCOMES = ("no-episode", "never-better", "returns-collapsed", "returns-flat")  # effects of the others


def examine(
    columns: Columns,
    ppo: PPOConfig,
    num_actions: int | None = None,
    action_dims: int | None = None,
    entropy_shift: float = 0.0,
    chunks: int | None = None,
) -> list[Finding]:
    """Apply all rules to a run. Return the findings: warnings before notes, causes before effects, earlier ones first.

    columns: name -> metric at every update, (U,), NaN where there is none: a session's history, or `read_metrics`.
    ppo: the current settings.
    num_actions: number of actions of a discrete policy, the scale of its entropy. None: the policy is continuous.
    action_dims: action dimensions of a continuous policy. None: inferred from its first entropy, if it started with
        std 1. 0: its entropy has no fixed scale, for example because masks change the number of legal actions.
    entropy_shift: nats to subtract from the entropy, to get that of a Box with every dimension in -1..1.
    chunks: number of chunks in the rollout of a recurrent policy, an upper bound on the minibatches. None: no memory.
    """
    signals = Signals(columns, ppo, num_actions, action_dims, entropy_shift, chunks)
    verdicts = {name: rule(signals) for name, rule in RULES.items()} if len(signals) else {}
    findings = [
        Finding(name, verdict.severity, verdict.what, int(signals.step[verdict.row]), verdict.advice.strip())
        for name, verdict in verdicts.items()
        if verdict is not None
    ]
    return sorted(findings, key=lambda found: (found.severity != "warning", found.rule in OUTCOMES, found.since))
