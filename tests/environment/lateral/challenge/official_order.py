"""N official controllers, one for each car, called one by one as the challenge's simulator calls them."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

State = namedtuple("State", ["roll_lataccel", "v_ego", "a_ego"])
FuturePlan = namedtuple("FuturePlan", ["lataccel", "roll_lataccel", "v_ego", "a_ego"])
NO_PLAN = FuturePlan([], [], [], [])


class OfficialOrder:
    """`environment.lateral.controllers.Controller` over controllers of the challenge, built without arguments.

    make: gives one. rows: of the route; nothing is planned beyond, as at the end of a file. None: all there are.
    """

    def __init__(self, make, rows=None):
        self.make, self.rows = make, rows

    def reset(self, num_envs):
        self.cars = [self.make() for _ in range(num_envs)]
        self.row = 20

    def update(self, target, roll, v, a, lataccel):
        left = 50 if self.rows is None else self.rows - self.row
        commands = []
        for i, car in enumerate(self.cars):
            plan = FuturePlan(*(column[1:left, i].tolist() for column in (target, roll, v, a)))
            commands.append(car.update(target[0, i], lataccel[i], State(roll[0, i], v[0, i], a[0, i]), plan))
        self.row += 1
        return np.array(commands)
