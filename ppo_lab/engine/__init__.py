"""The implementations of an update's arithmetic. `choose.py` selects one; tests compare each with the reference.

acting      the steps of a rollout: torch (the reference), NumPy, or a CUDA graph
learning    the gradient steps: autograd (the reference; also of a compiled or a custom loss), by hand, or a CUDA graph
memory_plan, threads    the memory that training needs and the number of CPU threads, both measured before training
"""
