"""How the arithmetic of an update is done. `choose.py` decides; tests hold every fast way equal to the reference.

acting      the steps of a rollout: torch (the reference), NumPy, a CUDA graph
learning    the gradient steps: autograd (the reference; of a compiled or a custom loss too), by hand, a CUDA graph
memory_plan, threads    what that will need, measured before training
"""
