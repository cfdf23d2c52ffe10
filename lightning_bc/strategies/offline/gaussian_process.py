"""Gaussian process: the expert is a random function, and the action is what the demonstrations leave of it on average.

    y(o) = f(o) + noise,    f ~ GP(0, k),    noise ~ Normal(0, s^2),    action = tanh(c + d y(o))

for each action dimension; u = arctanh(a) (squashing.py), c and d its mean and standard deviation, so that y has mean 0 and
variance 1. The covariance of two observations says how alike the expert acts on them, and is a sum of three, that is, f is a
sum of three functions: a linear one, an infinitely wide network with one hidden layer of ReLUs, and a smooth one that is
zero away from the demonstrations,

    k(o, o')  = sum_i v_i o_i o'_i + a_2 k_2 + a_3 k_3
    k_2(o, o') = |p| |p'| (sin t + (pi - t) cos t) / pi,    p = (o / l_2, 1),    t the angle between p and p'
    k_3(o, o') = (1 + r + r^2 / 3) exp(-r),    r^2 = 5 sum_i (o_i - o'_i)^2 / l_3i^2

(arc-cosine: Cho 2009, https://papers.nips.cc/paper/3628; Matern 5/2, a length per entry, and sums: Rasmussen and Williams
2006, https://gaussianprocess.org/gpml, chapters 4 and 5). So the more an entry matters, the shorter its lengths, and from
few demonstrations the action between and beyond them is a compromise of all three, where a trained network's is arbitrary.

Training fits the lengths, variances and noise alone. The loss is the exact negative log marginal likelihood of each batch,

    L = 1/B sum_d [ y_d^T (K + s^2 I)^-1 y_d / 2 + log det(K + s^2 I) / 2 + B log(2 pi) / 2 ]

which factorises that of all pairs over batches (Deisenroth and Ng 2015, https://arxiv.org/abs/1502.02843). Training
begins with the likeliest of three noises. The posterior mean needs none. Before the policy acts or is saved it is computed
of the pairs X,

    E[f(o)] = k(o, X) (K + s^2 I)^-1 y

Matrices are in float64: where the noise is small, the weights of the pairs are large and of both signs.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from lightning_bc.bounds import PositiveInt
from lightning_bc.networks import Network
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric, data_of
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.optimizers import DefaultAdamW

BLOCK = 250
"""Pairs whose marginal likelihood is taken together."""

ROWS = 1024
"""Observations that are answered together: beyond it memory is short."""

_FIRST_LOG_NOISES = (-5.0, -3.0, -1.0)
"""log s^2 that training may begin with. From too little, noise is explained by short lengths, and stays so."""

SMALLEST_NOISE = 1e-6
"""s^2, of targets of variance 1, that a matrix can be factorised with."""


class Covariance(nn.Module):
    """k: a linear function, a network of ReLUs and a smooth function, with lengths and variances to be learnt.

    Args:
        observation_dim: size of an observation.
    """

    def __init__(self, observation_dim: int) -> None:
        super().__init__()
        length = math.log(observation_dim) / 2                      # so that r is about 1 between two observations
        self.log_linear_variances = nn.Parameter(torch.full((observation_dim,), -3.0))
        self.log_network_lengths = nn.Parameter(torch.full((observation_dim,), length))
        self.log_smooth_lengths = nn.Parameter(torch.full((observation_dim,), length))
        self.log_network_variance = nn.Parameter(torch.tensor(-1.0))
        self.log_smooth_variance = nn.Parameter(torch.tensor(0.0))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Of ``left`` (rows, observation_dim) and ``right`` (columns, observation_dim), (rows, columns) float64."""
        left, right = left.double(), right.double()
        linear = self.log_linear_variances.double().exp()
        network, smooth = self.log_network_lengths.double().exp(), self.log_smooth_lengths.double().exp()
        variances = self.log_network_variance.double().exp(), self.log_smooth_variance.double().exp()
        return (
            (left * linear) @ right.T
            + variances[0] * arc_cosine(left / network, right / network)
            + variances[1] * matern(left / smooth, right / smooth)
        )


def arc_cosine(left: Tensor, right: Tensor) -> Tensor:
    """Of an infinitely wide layer of ReLUs with biases; the rows of both are in units of their lengths."""
    norms = (left.square().sum(-1, keepdim=True) + 1).sqrt() * (right.square().sum(-1) + 1).sqrt()
    cosine = ((left @ right.T + 1) / norms).clamp(-1 + 1e-12, 1 - 1e-12)   # an angle of 0 has no derivative
    sine = (1 - cosine.square()).sqrt()
    return norms * (sine + (math.pi - angle(cosine)) * cosine) / math.pi


def angle(cosine: Tensor) -> Tensor:
    """arccos; in ONNX, which has it in float32 alone, that and four steps of Newton's method."""
    if not torch.compiler.is_exporting():
        return cosine.arccos()
    found = cosine.float().clamp(-1 + 1e-6, 1 - 1e-6).arccos().double()
    found = torch.where(cosine > 0.999, (2 - 2 * cosine).sqrt(), found)  # near 0 and pi Newton's steps but halve the error
    found = torch.where(cosine < -0.999, math.pi - (2 + 2 * cosine).sqrt(), found)
    for _ in range(4):
        found = found + (found.cos() - cosine) / found.sin()
    return found


def matern(left: Tensor, right: Tensor) -> Tensor:
    """Of a function with two derivatives; the rows of both are in units of their lengths."""
    squared = left.square().sum(-1, keepdim=True) + right.square().sum(-1) - 2 * left @ right.T
    distance = (5 * squared).clamp(min=1e-12).sqrt()                # above 0, where a root has no derivative
    return (1 + distance + distance.square() / 3) * (-distance).exp()


class Posterior(Network):
    """The posterior mean of f, a weighted sum of covariances with some observations.

    Args:
        observation_dim: size of an observation.
        action_dim: size of an action.
        pairs: how many observations at most.
    """

    points: Tensor
    weights: Tensor

    def __init__(self, observation_dim: int, action_dim: int, pairs: int) -> None:
        super().__init__()
        self.covariance = Covariance(observation_dim)
        self.log_noise = nn.Parameter(torch.tensor(_FIRST_LOG_NOISES[0]))
        points, weights = torch.randn(pairs, observation_dim), torch.randn(pairs, action_dim)
        self.register_buffer("points", points.double())             # X, arbitrary until there are pairs
        self.register_buffer("weights", weights.double() / pairs)   # of those not needed 0
        self.used = pairs                                           # the first ones; the others are not computed with
        self.pending: Callable[[], None] | None = None
        self.register_state_dict_pre_hook(_settle)
        self.register_load_state_dict_post_hook(_take)

    def forward(self, observations: Tensor) -> Tensor:
        """E[f(o)] of normalised ``observations`` (batch, observation_dim), (batch, action_dim) float64."""
        self.settle()
        if torch.compiler.is_exporting() or len(observations) <= ROWS:
            points, weights = self.points[: self.used], self.weights[: self.used]
            return self.covariance(observations, points.double()) @ weights.double()
        return torch.cat([self(rows) for rows in observations.split(ROWS)])

    @property
    def noise(self) -> Tensor:
        """s^2."""
        return self.log_noise.double().exp() + SMALLEST_NOISE

    def log_likelihood(self, observations: Tensor, targets: Tensor, varying: Tensor | int | None = None) -> Tensor:
        """log p(y | X), summed over dimensions, of ``targets`` (pairs, action_dim) float64.

        Args:
            varying: how many of the dimensions count, where the others are all zeros; default: all.
        """
        factor = cholesky(with_noise(self.covariance(observations, observations), self.noise))
        white = torch.linalg.solve_triangular(factor, targets, upper=False)  # (pairs, action_dim)
        volume = factor.diagonal().log().sum() + len(targets) * math.log(2 * math.pi) / 2
        return -white.square().sum() / 2 - (targets.shape[1] if varying is None else varying) * volume

    def settle(self) -> None:
        """Compute what is ``pending``: before it acts or is saved, and not at each training step."""
        if self.pending is not None:
            compute, self.pending = self.pending, None
            compute()

    def take(self) -> None:
        """Act by the posterior that has been loaded."""
        self.pending = None
        self.used = 1 + max(self.weights.any(dim=1).nonzero()[:, 0].tolist(), default=0)

    @torch.no_grad()
    def condition(self, observations: Tensor, targets: Tensor) -> None:
        """Compute the posterior given ``targets`` (pairs, action_dim) float64, of no more pairs than there is room for."""
        number = len(observations)
        factor = cholesky(with_noise(self.covariance(observations, observations), self.noise))
        self.points.zero_()[:number] = observations.to(self.points)
        self.weights.zero_()[:number] = torch.cholesky_solve(targets, factor)
        self.used = number


def _settle(posterior: Posterior, *_: object) -> None:              # a hook that pickle takes
    posterior.settle()


def _take(posterior: Posterior, *_: object) -> None:
    posterior.take()


def with_noise(covariance: Tensor, noise: Tensor) -> Tensor:
    """K + s^2 I."""
    return covariance + noise * torch.eye(len(covariance), device=covariance.device, dtype=covariance.dtype)


def cholesky(matrix: Tensor) -> Tensor:
    """L, of which L L^T is the ``matrix``; where there is none, what is no number, as the loss is then."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return factor / (failed == 0)


class GaussianProcess(OfflineStrategy):
    """Average all functions that the demonstrations leave, weighted by how likely they are.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        pairs: of how many pairs at most, the first ones, the posterior is computed; its time grows with their cube.
        optimizer: which optimizer, with its learning rate and weight decay; of the logarithms of lengths and variances.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    recordable = True
    default_steps = 1000
    logs = {
        "loss": Metric(
            "nat per pair, of y",
            "-(1/B) log p(y_1 ... y_B given o_1 ... o_B), of blocks of at most 250 pairs that are served together",
        ),
        "noise": Metric("of y", "s, the standard deviation of the noise"),
    }

    network: Posterior
    center: Tensor
    deviation: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        pairs: PositiveInt = 4000,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.answers_by = pairs
        self.network = Posterior(observation_dim, self.action_dim, pairs)
        self.register_buffer("center", torch.zeros(self.action_dim))  # c
        self.register_buffer("deviation", torch.ones(self.action_dim))  # d

    def fit_actions(self, actions: Tensor) -> None:
        """Take what makes the scaled training ``actions`` (pairs, action_dim), before the tanh, of mean 0 and variance 1."""
        super().fit_actions(actions)
        deviation, mean = torch.std_mean(self.squashing.unsquash(actions), dim=0, correction=0)
        self.center.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 0.0))

    @torch.no_grad()
    def begin(self, observations: Tensor, actions: Tensor) -> None:
        """Take the first noise that is the likeliest, of a block that is spread over the pairs."""
        rows = torch.linspace(0, len(actions) - 1, min(BLOCK, len(actions)), device=actions.device).long()
        likelihoods = []
        for log_noise in _FIRST_LOG_NOISES:
            self.network.log_noise.fill_(log_noise)
            likelihoods.append(self.network.log_likelihood(observations[rows], self.targets(actions[rows]), self.varying))
        best = torch.stack(likelihoods).nan_to_num(-math.inf).argmax()
        self.network.log_noise.fill_(_FIRST_LOG_NOISES[int(best)])

    def setup(self, stage: str) -> None:
        """Warn of more pairs than it is for."""
        super().setup(stage)
        pairs = len(data_of(self.trainer).training_actions) if stage == "fit" else 0
        if pairs > self.answers_by:
            rank_zero_only(warnings.warn)(
                f"a Gaussian process answers by the first {self.answers_by:,} of {pairs:,} pairs (--model.pairs): it is for "
                "few demonstrations. Take another strategy, or fewer, --data.episodes.",
                stacklevel=2,
            )

    def targets(self, actions: Tensor) -> Tensor:
        """y of scaled ``actions`` (batch, action_dim), in float64; 0 in what does not vary, where d is 0."""
        deviation = torch.where(self.deviation > 0, self.deviation, 1.0)
        return (self.squashing.unsquash(actions).double() - self.center) / deviation * (self.deviation > 0)

    @property
    def varying(self) -> Tensor:
        """How many dimensions of the actions vary."""
        return (self.deviation > 0).sum()

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """Negative log marginal likelihood, per pair, of each block by itself."""
        blocks = zip(observations.split(BLOCK), self.targets(actions).split(BLOCK), strict=True)
        total = torch.stack([self.network.log_likelihood(*block, self.varying) for block in blocks]).sum()
        return -total.to(observations.dtype) / len(actions), {"noise": self.network.noise.detach().sqrt().float()}

    def condition(self, observations: Tensor, actions: Tensor) -> None:
        """Have the posterior computed given these pairs, as soon as it is asked for."""
        self.network.pending = partial(self.network.condition, observations, self.targets(actions))

    def settle(self) -> None:
        """Compute the posterior of the present lengths."""
        self.network.settle()

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The squashed posterior mean, or a sample of the noise around it."""
        mean = self.network(observations)                           # (batch, action_dim)
        if not deterministic:
            mean = mean + self.network.noise.sqrt() * torch.randn_like(mean)
        return self.squashing((self.center + self.deviation * mean).to(observations.dtype))
