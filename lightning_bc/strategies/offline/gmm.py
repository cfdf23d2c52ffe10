"""Gaussian mixture: several ways to act, each with its probability.

    a = tanh(u),    u ~ sum_k pi_k(o) Normal(mu_k(o), diag(sigma_k^2)),    k = 1 ... components
    log p(a | o) = log sum_k pi_k(o) prod_d Normal(arctanh a_d; mu_kd(o), sigma_kd) - sum_d log(1 - a_d^2)

a mixture density network (Bishop 1994, https://publications.aston.ac.uk/id/eprint/373), in robot learning the head of
BC-RNN-GMM (Mandlekar 2021, https://arxiv.org/abs/2108.03298). It can hold two humps where MSE and a Gaussian average
them. The likelihood is exact, on actions scaled to [-1, 1]; why before the tanh, and what happens on the bounds:
squashing.py. Each component learns its own standard deviations, which do not depend on the observation: with sigma_k(o) the
means can stop learning where they are wrong, as in gaussian.py. Noise that changes with the observation is modelled by the
weights, which choose between narrow and wide components. A floor under the standard deviations keeps a component from
shrinking onto a single action, where the likelihood is infinite.

Components that start alike get the same gradients and stay alike, so their means start a little apart. A component that is
wide beside the distance between two ways to act covers both: the one whose standard deviation falls first then takes all of
the weight, and the others get no gradient any more (docs/gates.md). With ``initial_scale`` standard deviations start below
that distance.
"""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from lightning_bc.bounds import PositiveFloat, PositiveInt
from lightning_bc.errors import InputError
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.optimizers import DefaultAdamW


class GaussianMixture(OfflineStrategy):
    """Maximise the log-probability of the expert's action under a squashed Gaussian mixture.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps observations to components (1 + action_dim) outputs: weights and means.
        components: number of mixture components.
        minimum_scale: floor of the standard deviations before the tanh.
        initial_scale: what they start at, above that floor; default: log 2 above it.
        history: how many observations the policy sees, the present one last.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    multimodal = True
    recordable = True
    logs = {
        "loss": Metric(
            "nat per pair", "-(1/B) sum_pairs [log sum_k pi_k(o) Normal(u; mu_k(o), sigma_k) - sum_d log(1 - a_d^2)]"
        ),
        "components_used": Metric("components", "mean of exp(-sum_k pi_k(o) log pi_k(o)), 1 to all of them"),
        "scale": Metric("before the tanh", "mean of sigma over dimensions and, in a mixture, components"),
    }

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        components: PositiveInt = 5,
        minimum_scale: PositiveFloat = 0.1,
        initial_scale: PositiveFloat | None = None,
        history: PositiveInt = 1,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.components, self.minimum_scale = components, minimum_scale
        self.set_windows(history, horizon=1, chunk=1)
        self.network = network(self.input_size(), components * (1 + self.action_dim))
        self.mean_bias = nn.Parameter(0.2 * torch.randn(components, self.action_dim))
        raw = 0.0
        if initial_scale is not None:
            if initial_scale <= minimum_scale:
                raise InputError(f"--model.initial_scale {initial_scale}: wanted above minimum_scale, {minimum_scale}.")
            raw = math.log(math.expm1(initial_scale - minimum_scale))  # softplus of it is the difference
        self.raw_scale = nn.Parameter(torch.full((components, self.action_dim), raw))

    def parameters_of(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (batch, components), means before the tanh (batch, components, action_dim), and scales.

        The scales are of shape (components, action_dim).
        """
        outputs = self.network(observations.flatten(1))             # (batch, components (1 + action_dim))
        outputs = outputs.unflatten(-1, (self.components, -1))
        logits, means = outputs.split([1, self.action_dim], dim=-1)
        return logits.squeeze(-1).log_softmax(-1), self.mean_bias + means, self.minimum_scale + F.softplus(self.raw_scale)

    def distribution(self, observations: Tensor) -> MixtureSameFamily:
        """The mixture over u, before the tanh, given normalised ``observations`` (batch, observation_dim)."""
        log_weights, means, scales = self.parameters_of(observations)
        components = Independent(Normal(means, scales.expand_as(means), validate_args=False), 1)
        return MixtureSameFamily(Categorical(logits=log_weights, validate_args=False), components, validate_args=False)

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Negative log-probability of the expert's action."""
        actions = actions.flatten(1)                                # (batch, action_dim)
        log_weights, means, scales = self.parameters_of(observations)
        standardised = (self.squashing.unsquash(actions).unsqueeze(-2) - means) / scales  # (batch, components, action_dim)
        log_components = -0.5 * standardised.square() - scales.log() - 0.5 * math.log(2 * math.pi)
        log_mixture = (log_weights + log_components.sum(-1)).logsumexp(-1)
        loss = -(log_mixture - self.squashing.log_volume(actions)).mean()
        used = torch.exp(-(log_weights.exp() * log_weights).sum(-1)).mean()  # perplexity: components in use, 1 to k
        return loss, {"components_used": used.detach(), "scale": scales.detach().mean()}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The squashed mean of the likeliest component, or a sample."""
        if not deterministic:
            return self.first_chunk(self.squashing(self.distribution(observations).sample()))
        log_weights, means, _ = self.parameters_of(observations)
        likeliest = log_weights.argmax(-1)                          # (batch,)
        return self.first_chunk(self.squashing(means[torch.arange(means.shape[0], device=means.device), likeliest]))
