"""Lateral control: steer a car so that its lateral acceleration follows the road. See `environment.lateral_env`.

rules        times, limits, cost and noise of comma.ai's controls challenge
routes       routes from the challenge's CSV files; `synthetic` generates routes
plants       the plant interface; `surrogate` is physics, `tinyphysics` the official network (`gpt`: in torch)
driver       observations and steering, the same source in the environment and in an exported controller
controllers  zero and PID
simulate     drives with a controller, in the official order
"""
