"""Noise that deterministic actions begin with."""

import torch
from torch import Tensor


def fixed_noise(*shape: int) -> Tensor:
    """Normal numbers of this ``shape``, always the same, whatever torch's generator has drawn before."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
