"""Observation statistics of stable-baselines3's VecNormalize, which lie in a pickle beside the policy.

    n(o) = clip((o - mean) / sqrt(var + epsilon), -clip_obs, clip_obs)

The pickle is read without being run: of the names in it only NumPy's for arrays mean what they say, and any other becomes an
inert object that keeps its attributes (https://docs.python.org/3/library/pickle.html#restricting-globals).
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor, nn

from lightning_bc.errors import InputError

NAMES = ("vecnormalize.pkl", "vec_normalize.pkl")
"""As RL Zoo calls the file, and as the models on Hugging Face do."""

_ARRAYS = {
    "dtype": np.dtype,
    "ndarray": np.ndarray,
    "_reconstruct": multiarray._reconstruct,
    "scalar": multiarray.scalar,
    "_frombuffer": lambda data, dtype, shape, order: np.frombuffer(data, dtype).reshape(shape, order=order),
}
_ARRAY_MODULES = {"numpy", *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in ("multiarray", "numeric"))}


class VecNormalize(nn.Module):
    """Observations normalised by statistics that do not change any more.

    Args:
        mean: (observation_dim,).
        variance: (observation_dim,).
        epsilon: added to the variance.
        clip: the largest absolute value that comes out.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: np.ndarray, variance: np.ndarray, epsilon: float, clip: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("deviation", torch.tensor(variance + epsilon, dtype=torch.float64).sqrt())
        self.clip = clip

    def forward(self, observations: Tensor) -> Tensor:
        """Of ``observations`` (batch, observation_dim); float32, computed in float64 as there."""
        return ((observations.double() - self.mean) / self.deviation).clamp(-self.clip, self.clip).float()


class _Inert:
    """Stands for an object of a class that is not imported: it keeps its attributes, and nothing of it runs."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name in _ARRAYS:
            return _ARRAYS[name]
        return type(name, (_Inert,), {"origin": f"{module}.{name}"})


def beside(policy: Path) -> VecNormalize | None:
    """What normalises the observations of the policy in the file ``policy``; None where no statistics lie beside it.

    They are looked for as RL Zoo lays them, in the folder of the policy's name (``a/Id-v0/vecnormalize.pkl`` for
    ``a/Id-v0.zip``), then in the policy's folder.

    Raises:
        InputError: the file is not readable, or not a VecNormalize of vectors.
    """
    for path in (folder / name for folder in (policy.with_suffix(""), policy.parent) for name in NAMES):
        if path.is_file():
            return _read(path)
    return None


def _read(path: Path) -> VecNormalize | None:
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
        if getattr(content, "origin", None) != "stable_baselines3.common.vec_env.vec_normalize.VecNormalize":
            raise TypeError("it holds something else")
        if not getattr(content, "norm_obs", True):
            return None
        mean, variance = (np.asarray(getattr(content.obs_rms, key), dtype=np.float64) for key in ("mean", "var"))
        epsilon, clip = float(content.epsilon), float(content.clip_obs)
        if mean.ndim != 1 or mean.shape != variance.shape or not np.isfinite([*mean, *variance, epsilon, clip]).all():
            raise ValueError(f"the mean has the shape {mean.shape}, the variance {variance.shape}; wanted finite vectors")
    except Exception as error:                                      # a pickle can fail in any way
        raise InputError(
            f"the statistics {path} cannot be read as stable-baselines3's VecNormalize of vectors ({type(error).__name__}: "
            f"{error}). Save them again with VecNormalize.save, or move them away if the policy was trained without."
        ) from error
    return VecNormalize(mean, variance, epsilon, clip)
