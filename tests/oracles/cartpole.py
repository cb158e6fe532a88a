"""CartPole from its two equations of motion, one cart at a time: a 2 x 2 linear system for the accelerations."""

import math

import numpy as np


def step(state, action):
    """One explicit Euler step of 0.02 s. state (N, 4): x, x', theta, theta'; action (N,). Returns state, terminated."""
    gravity, cart, pole, half_length, tau = 9.8, 1.0, 0.1, 0.5, 0.02
    after, terminated = np.zeros_like(state), np.zeros(len(state), dtype=bool)
    for i, (x, x_dot, theta, theta_dot) in enumerate(state):
        force = 10.0 if action[i] == 1 else -10.0
        mass = [
            [cart + pole, pole * half_length * math.cos(theta)],  # horizontal forces on cart and pole
            [math.cos(theta), 4 / 3 * half_length],  # torques on the pole about the joint, divided by m l
        ]
        push = [
            force + pole * half_length * theta_dot**2 * math.sin(theta),
            gravity * math.sin(theta),
        ]
        x_accel, theta_accel = np.linalg.solve(mass, push)
        after[i] = x + tau * x_dot, x_dot + tau * x_accel, theta + tau * theta_dot, theta_dot + tau * theta_accel
        terminated[i] = abs(after[i, 0]) > 2.4 or abs(after[i, 2]) > 12 * math.pi / 180
    return after, terminated
