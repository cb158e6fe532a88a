"""Anything Gymnasium can make as `ppo_lab.envs.Envs`: one by one, vectorised, in subprocesses.

Empty on purpose: a worker process imports this package and must not pay for torch.
"""
