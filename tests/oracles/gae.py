"""Advantages by the sum they are defined by: O(T^2), no recursion."""

import numpy as np


def advantages(reward, value, next_value, terminated, done, valid, gamma, gae_lambda):
    """A_t = sum over k >= t, up to the end of the episode, of (gamma lambda)^(k-t) delta_k. All arrays (T, N)."""
    T, N = reward.shape
    result = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            if not valid[t, n]:
                continue
            weight = 1.0
            for k in range(t, T):
                if not valid[k, n]:
                    break
                bootstrap = 0.0 if terminated[k, n] else gamma * next_value[k, n]
                result[t, n] += weight * (reward[k, n] + bootstrap - value[k, n])
                if done[k, n]:
                    break
                weight *= gamma * gae_lambda
    return result
