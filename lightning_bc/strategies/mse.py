"""Mean squared error: one action for one observation.

    L(theta) = E || mu_theta(o) - a ||^2 / action_dim

Its minimiser is the conditional mean E[a | o]. Where demonstrations are samples of a unimodal expert, averaging takes the
expert's noise away, so the clone can beat its demonstrators; where two different actions are both good, their average
may be bad (Bishop 1994, Mixture Density Networks, https://publications.aston.ac.uk/id/eprint/373). Behaviour cloning in
its oldest form (Pomerleau 1989, ALVINN).
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, OfflineStrategy


class MSE(OfflineStrategy):
    """Regress the expert's action.

    Args:
        network: maps observations to action_dim outputs.
        options: those of every strategy: optimizer, schedule.
    """

    def __init__(self, network: NetworkFactory = MLP, **options: Any) -> None:
        super().__init__(**options)
        self.network = network(self.observation_dim, self.action_dim)

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """Squared distance to the expert's action, averaged over batch and dimensions."""
        return F.mse_loss(self.network(observations), actions), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The regressed action; there is no other to sample."""
        return self.network(observations)                           # (batch, action_dim)
