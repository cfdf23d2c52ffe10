"""Mean squared error: one action for one observation.

    L(theta) = E || mu_theta(o) - arctanh(a) ||^2 / action_dim,    action = tanh(mu_theta(o))

Behaviour cloning in its oldest form (Pomerleau 1989, ALVINN). The minimiser is a conditional mean: where demonstrations
are samples of a noisy expert, averaging takes the noise away, and the clone can beat its demonstrators; where two
different actions are both good, their average may be bad (Bishop 1994, Mixture Density Networks,
https://publications.aston.ac.uk/id/eprint/373).

Which mean matters: the error is taken before the tanh that bounds the action (squashing.py); with ``squash: false`` it is
that of the actions themselves.
"""

from collections.abc import Sequence

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_bc.bounds import NonNegativeFloat, PositiveInt
from lightning_bc.networks import MLP, Network, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.windows import mean_squared_error
from lightning_bc.strategies.optimizers import DefaultAdamW


class MSE(OfflineStrategy):
    """Regress the expert's action.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps observations to horizon action_dim outputs.
        squash: take the error before the tanh that bounds the action; false takes it on the action itself.
        history: how many observations the policy sees, the present one last.
        horizon: how many actions, from the present one on, are regressed together.
        chunk: how many of these are played before the policy is asked again.
        temporal_ensembling: ask at every step, and play the mean of overlapping chunks with weights exp(-this i), i = 0 for
            the oldest; default: chunks are played one after the other.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    stochastic = False
    recordable = True
    logs = {
        "loss": Metric(
            "squared, the first before the tanh",
            "mean over batch and dimensions of (f(o) - u)^2; with `squash: false`, of (f(o) - a)^2",
        ),
    }

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        squash: bool = True,
        history: PositiveInt = 1,
        horizon: PositiveInt = 1,
        chunk: PositiveInt = 1,
        temporal_ensembling: NonNegativeFloat | None = None,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.squash = squash
        self.set_windows(history, horizon, chunk, temporal_ensembling)
        self.cleanrl_heads = ("fc_mu",) if squash and not self.has_windows else ()
        self.network = network(self.input_size(), horizon * self.action_dim)

    def fit_actions(self, actions: Tensor) -> None:
        """Where they saturate, if the error is taken before the tanh."""
        if self.squash:
            super().fit_actions(actions)

    @property
    def squashed_mean(self) -> Network | None:
        """The network, where it answers one observation with one action, before the tanh."""
        return self.network if self.squash and self.squashing.is_plain and not self.has_windows else None

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Squared distance to the expert's action, averaged over batch and dimensions."""
        targets = self.squashing.unsquash(actions) if self.squash else actions
        return mean_squared_error(self.network(observations.flatten(1)), targets.flatten(1), within), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The regressed action; there is no other to sample."""
        outputs = self.network(observations.flatten(1))             # (batch, horizon action_dim)
        return self.first_chunk(self.squashing(outputs) if self.squash else outputs)
