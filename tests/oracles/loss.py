"""The PPO loss row by row, as the papers write it."""

import math


def ppo_loss(
    log_prob, entropy, value, old_log_prob, old_value, advantage, returns, clip, vf_coef, ent_coef, value_clip
):
    """(total, policy, value, entropy, approx_kl, clip_fraction) of 1-D arrays."""
    n = len(log_prob)
    policy = critic = kl = clipped = 0.0
    for i in range(n):
        r = math.exp(log_prob[i] - old_log_prob[i])
        kept = min(max(r, 1 - clip), 1 + clip)
        policy -= min(r * advantage[i], kept * advantage[i]) / n
        error = (value[i] - returns[i]) ** 2
        if value_clip is not None:
            near = old_value[i] + min(max(value[i] - old_value[i], -value_clip), value_clip)
            error = max(error, (near - returns[i]) ** 2)
        critic += error / n
        kl += (r - 1 - (log_prob[i] - old_log_prob[i])) / n
        clipped += (abs(r - 1) > clip) / n
    mean_entropy = sum(entropy) / n
    return policy + vf_coef * critic - ent_coef * mean_entropy, policy, critic, mean_entropy, kl, clipped
