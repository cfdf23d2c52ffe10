"""How actions are modelled, one file each."""

from lightning_bc.strategies.autoregressive import Autoregressive
from lightning_bc.strategies.base import OfflineStrategy, Strategy, load_strategy, strategies, strategy_of_checkpoint
from lightning_bc.strategies.diffusion import Diffusion
from lightning_bc.strategies.flow_matching import FlowMatching
from lightning_bc.strategies.gaussian import Gaussian
from lightning_bc.strategies.gmm import GaussianMixture
from lightning_bc.strategies.mse import MSE

__all__ = [
    "MSE",
    "Autoregressive",
    "Diffusion",
    "FlowMatching",
    "Gaussian",
    "GaussianMixture",
    "OfflineStrategy",
    "Strategy",
    "load_strategy",
    "strategies",
    "strategy_of_checkpoint",
]
