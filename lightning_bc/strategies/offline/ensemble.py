"""Ensemble: several policies that differ in their initial weights alone, and their mean action.

    L = (1/M) sum_m L_m(theta_m),    action = (1/M) sum_m a_m(o)

Where there are demonstrations, policies that began from other weights agree; where there are none, each goes on as its
initial weights would have it, and they do not (deep ensembles: Lakshminarayanan 2017, https://arxiv.org/abs/1612.01474). A
clone of few demonstrations meets such states in every episode, and falls where its one guess is wrong; in the mean, errors
that the members do not share cancel.

Samples are those of one member, drawn anew for each observation: the mixture of the members, each as likely.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import PositiveInt
from lightning_bc.networks import MLP, Network, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.autoregressive import Autoregressive
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.diffusion import Diffusion
from lightning_bc.strategies.offline.flow_matching import FlowMatching
from lightning_bc.strategies.offline.gaussian import Gaussian
from lightning_bc.strategies.offline.gmm import GaussianMixture
from lightning_bc.strategies.offline.mean_flow import MeanFlow
from lightning_bc.strategies.offline.mip import MIP
from lightning_bc.strategies.offline.mse import MSE
from lightning_bc.strategies.offline.vae import VAE
from lightning_bc.strategies.optimizers import DefaultAdamW

_MEMBERS = (Autoregressive, Diffusion, FlowMatching, Gaussian, GaussianMixture, MIP, MSE, MeanFlow, VAE)
Member = Literal[
    "Autoregressive", "Diffusion", "FlowMatching", "Gaussian", "GaussianMixture", "MIP", "MSE", "MeanFlow", "VAE"
]


class Ensemble(OfflineStrategy):
    """Train several models side by side, and play the mean of their actions.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: of each member, as its strategy wants it.
        member: the strategy of all members, in its default settings.
        members: how many.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    multimodal = True
    recordable = True
    logs = {"loss": Metric("as the member's", "(1/M) sum_m of the loss of member m")}

    members: Any

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        member: Member = "Autoregressive",
        members: PositiveInt = 5,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        strategy: Any = next(cls for cls in _MEMBERS if cls.__name__ == member)
        built = [strategy(observation_dim, action_low, action_high, network) for _ in range(members)]
        for one in built:
            one.border = nn.Identity()                              # it is crossed outside of them
        self.members = nn.ModuleList(built)

    @property
    def actor(self) -> Network:
        """That of the first member; the others' are alike."""
        return self.members[0].actor

    def network_calls(self) -> list[int]:
        """Those of each member."""
        return super().network_calls() * len(self.members)

    def acting_weights(self) -> StateDict:
        """Those of each member, and the border's."""
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("members.")}
        parts = [(f"members.{number}", member.acting_weights()) for number, member in enumerate(self.members)]
        return own | {f"{part}.{name}": value for part, weights in parts for name, value in weights.items()}

    def fit_actions(self, actions: Tensor) -> None:
        """Each member takes what it needs to know of them."""
        for member in self.members:
            member.fit_actions(actions)

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
