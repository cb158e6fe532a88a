"""Action distributions, and the heads that compute them from features, for each kind of action space.

| space         | head                 | distribution                                              |
|---------------|----------------------|-----------------------------------------------------------|
| Discrete      | CategoricalHead      | Categorical                                               |
| MultiDiscrete | MultiCategoricalHead | MultiCategorical                                          |
| MultiBinary   | BinaryHead           | MultiCategorical of two choices                           |
| Box           | GaussianHead, SquashedHead, BetaHead | DiagonalGaussian, SquashedGaussian, Beta  |
| flat Dict     | JointHead            | Joint                                                     |
"""

from ppo_lab.models.distributions.beta import Beta
from ppo_lab.models.distributions.box_heads import BetaHead, GaussianHead, SquashedHead
from ppo_lab.models.distributions.contract import Distribution, Noise
from ppo_lab.models.distributions.discrete import Categorical, MultiCategorical
from ppo_lab.models.distributions.discrete_heads import BinaryHead, CategoricalHead, MultiCategoricalHead
from ppo_lab.models.distributions.gaussian import DiagonalGaussian, SquashedGaussian
from ppo_lab.models.distributions.heads import Head, JointHead, make_head
from ppo_lab.models.distributions.joint import Joint
from ppo_lab.models.distributions.masks import check_mask

__all__ = [
    "Beta",
    "BetaHead",
    "BinaryHead",
    "Categorical",
    "CategoricalHead",
    "DiagonalGaussian",
    "Distribution",
    "GaussianHead",
    "Head",
    "Joint",
    "JointHead",
    "MultiCategorical",
    "MultiCategoricalHead",
    "Noise",
    "SquashedGaussian",
    "SquashedHead",
    "check_mask",
    "make_head",
]
