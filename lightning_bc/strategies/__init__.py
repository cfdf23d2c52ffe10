"""How actions are modelled, one file each."""

from lightning_bc.strategies.airl import AIRL
from lightning_bc.strategies.autoregressive import Autoregressive
from lightning_bc.strategies.base import OfflineStrategy, Strategy, load_strategy, strategies, strategy_of_checkpoint
from lightning_bc.strategies.diffusion import Diffusion
from lightning_bc.strategies.flow_matching import FlowMatching
from lightning_bc.strategies.gail import GAIL
from lightning_bc.strategies.gaussian import Gaussian
from lightning_bc.strategies.gmm import GaussianMixture
from lightning_bc.strategies.interactive import InteractiveStrategy
from lightning_bc.strategies.mse import MSE
from lightning_bc.strategies.sac import SAC

__all__ = [
    "AIRL",
    "GAIL",
    "MSE",
    "SAC",
    "Autoregressive",
    "Diffusion",
    "FlowMatching",
    "Gaussian",
    "GaussianMixture",
    "InteractiveStrategy",
    "OfflineStrategy",
    "Strategy",
    "load_strategy",
    "strategies",
    "strategy_of_checkpoint",
]
