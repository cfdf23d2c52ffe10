"""Ensemble: policies of several kinds side by side, and their mean action.

    L = (1/M) sum_m L_m(theta_m),    action = (1/M) sum_m a_m(o)

Where there are demonstrations, all that were fitted to them agree; where there are none, each goes on as its initial weights
and its way of modelling actions would have it, and they do not (deep ensembles: Lakshminarayanan 2017,
https://arxiv.org/abs/1612.01474; of several kinds: stacked regressions, Breiman 1996, https://doi.org/10.1007/BF00117832). A
clone of few demonstrations meets such states in every episode, and falls where its one guess is wrong; in the mean, errors
that the members do not share cancel. Members of one kind share more of them than members of several.

Samples are those of one member, drawn anew for each observation: the mixture of the members, each as likely.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_bc.aliases import StateDict
from lightning_bc.errors import InputError
from lightning_bc.networks import MLP, Network, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.autoregressive import Autoregressive
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.diffusion import Diffusion
from lightning_bc.strategies.offline.flow_matching import FlowMatching
from lightning_bc.strategies.offline.gaussian import Gaussian
from lightning_bc.strategies.offline.gaussian_process import GaussianProcess
from lightning_bc.strategies.offline.gmm import GaussianMixture
from lightning_bc.strategies.offline.mean_flow import MeanFlow
from lightning_bc.strategies.offline.mip import MIP
from lightning_bc.strategies.offline.mse import MSE
from lightning_bc.strategies.offline.vae import VAE
from lightning_bc.strategies.optimizers import DefaultAdamW

Member = Literal[
    "Autoregressive",
    "Diffusion",
    "FlowMatching",
    "Gaussian",
    "GaussianMixture",
    "GaussianProcess",
    "MIP",
    "MSE",
    "MeanFlow",
    "VAE",
]
_KNOWN: tuple[Any, ...] = (
    *(Autoregressive, Diffusion, FlowMatching, Gaussian, GaussianMixture, GaussianProcess, MIP, MSE, MeanFlow, VAE),
)


class Ensemble(OfflineStrategy):
    """Train several models side by side, and play the mean of their actions.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: of each member that has one, as its strategy wants it.
        members: the strategy of each, in its default settings; a name may stand several times.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.

    Raises:
        InputError: there are no members.
    """

    multimodal = True
    recordable = True
    default_passes = 500
    logs = {"loss": Metric("as the members'", "(1/M) sum_m of the loss of member m")}

    members: Any

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        members: Sequence[Member] = ("FlowMatching", "FlowMatching", "MIP", "MIP", "MSE", "MSE"),
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        if not members:
            raise InputError("members: there are none. Name one strategy at least, and more for a mean.")
        known = {cls.__name__: cls for cls in _KNOWN}
        built = []
        for member in members:
            options = {"network": network} if "network" in signature(known[member]).parameters else {}
            built.append(known[member](observation_dim, action_low, action_high, **options))
            built[-1].border = nn.Identity()                        # it is crossed outside of them
        self.members = nn.ModuleList(built)
        self.answers_by = max(member.answers_by for member in built)

    @property
    def actor(self) -> Network:
        """That of the first member."""
        return self.members[0].actor

    @property
    def actors(self) -> list[Network]:
        """Those of all members."""
        return [actor for member in self.members for actor in member.actors]

    def acting_weights(self) -> StateDict:
        """Those of each member, and the border's."""
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("members.")}
        parts = [(f"members.{number}", member.acting_weights()) for number, member in enumerate(self.members)]
        return own | {f"{part}.{name}": value for part, weights in parts for name, value in weights.items()}

    def fit_actions(self, actions: Tensor) -> None:
        """Each member takes what it needs to know of them."""
        for member in self.members:
            member.fit_actions(actions)

    def begin(self, observations: Tensor, actions: Tensor) -> None:
        """Each member takes what it begins with."""
        for member in self.members:
            member.begin(observations, actions)

    def condition(self, observations: Tensor, actions: Tensor) -> None:
        """Each member takes the pairs that it answers by."""
        for member in self.members:
            if number := member.answers_by:
                member.condition(observations[:number], actions[:number])

    def settle(self) -> None:
        """Compute what members have put off."""
        for member in self.members:
            member.settle()

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """The mean of the members' losses; no member's gradient depends on another."""
        return torch.stack([member.loss(observations, actions)[0] for member in self.members]).mean(), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The mean of the members' actions, or one member's sample."""
        answers = torch.stack([member.act(observations, deterministic).clamp(-1.0, 1.0) for member in self.members])
        if deterministic:                                           # (members, batch, action_dim)
            return answers.mean(dim=0)
        chosen = torch.multinomial(torch.ones_like(answers[..., 0]).T, 1)  # (batch, 1)
        return answers.gather(0, chosen.expand_as(answers[0]).unsqueeze(0)).squeeze(0)
