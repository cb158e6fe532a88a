"""Lateral control: steer a car so that its lateral acceleration follows the road. See `environment.lateral_env`.

rules        times, limits, cost and noise of comma.ai's controls challenge
routes       where the cars drive: the challenge's CSV files; `synthetic` makes such routes
plants       what a plant is; `surrogate` is physics, `tinyphysics` the official network (`gpt`: in torch)
driver       what a driver sees and how it steers, the same text in the environment and in an exported controller
controllers  zero and PID
simulate     drives with a controller, in the official order
"""
