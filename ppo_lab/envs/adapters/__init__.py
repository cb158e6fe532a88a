"""Adapters from Gymnasium environments (single, vectorised, in worker processes) to `ppo_lab.envs.Envs`.

Empty on purpose: a worker process imports this package and must not import torch, which costs seconds.
"""
