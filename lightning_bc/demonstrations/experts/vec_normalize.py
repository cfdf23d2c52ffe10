"""Observation statistics of stable-baselines3's VecNormalize, which lie in a pickle beside the policy.

    n(o) = clip((o - mean) / sqrt(var + epsilon), -clip_obs, clip_obs)

The pickle is read without being run: whatever it names becomes an inert object that keeps what it was given, nothing is
imported (https://docs.python.org/3/library/pickle.html#restricting-globals), and arrays are made from the bytes afterwards.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_bc.errors import InputError

NAMES = ("vecnormalize.pkl", "vec_normalize.pkl")
"""As RL Zoo calls the file, and as the models on Hugging Face do."""


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
    """Stands for an object of a class that is not imported; nothing of it runs."""

    origin = ""
    arguments: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *arguments: Any) -> "_Inert":
        inert = super().__new__(cls)
        inert.arguments = arguments
        return inert

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Inert]:
        return type(name, (_Inert,), {"origin": f"{module}.{name}"})


def beside(policy: Path) -> nn.Module | None:
    """What the observations of the policy in the file ``policy`` go through; None where no statistics lie beside it.

    They are looked for as RL Zoo lays them, in the folder of the policy's name (``a/Id-v0/vecnormalize.pkl`` for
    ``a/Id-v0.zip``), then in the policy's folder.

    Raises:
        InputError: the file is not readable, or not a VecNormalize of vectors.
    """
    for path in (folder / name for folder in (policy.with_suffix(""), policy.parent) for name in NAMES):
        if path.is_file():
            return _read(path)
    return None


def _read(path: Path) -> nn.Module:
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
        if getattr(content, "origin", None) != "stable_baselines3.common.vec_env.vec_normalize.VecNormalize":
            raise TypeError("it holds something else")
        if not content.state.get("norm_obs", True):                 # rewards alone were normalised
            return nn.Identity()
        mean, variance = (_array(content.state["obs_rms"].state[key]) for key in ("mean", "var"))
        epsilon, clip = (float(_array(content.state[key])) for key in ("epsilon", "clip_obs"))
        if mean.ndim != 1 or mean.shape != variance.shape or not np.isfinite([*mean, *variance, epsilon, clip]).all():
            raise ValueError(f"the mean has the shape {mean.shape}, the variance {variance.shape}; wanted finite vectors")
    except Exception as error:                                      # a pickle can fail in any way
        raise InputError(
            f"the statistics {path} cannot be read as stable-baselines3's VecNormalize of vectors ({type(error).__name__}: "
            f"{error}). Save them again with VecNormalize.save, or move them away if the policy was trained without."
        ) from error
    return VecNormalize(mean, variance, epsilon, clip)


def _array(value: Any) -> np.ndarray:
    """The numbers that ``value`` stands for: a number itself, or one of the three forms in which NumPy pickles."""
    if not isinstance(value, _Inert):
        return np.asarray(float(value))
    shape: tuple[int, ...] = ()
    match value.origin.rpartition(".")[2]:
        case "_reconstruct":
            _, shape, dtype, is_fortran, content = value.state
        case "_frombuffer":
            content, dtype, shape, order = value.arguments
            is_fortran = order == "F"
        case _:                                                     # scalar
            (dtype, content), is_fortran = value.arguments, False
    code, byte_order = dtype.arguments[0], dtype.state[1]
    if not re.fullmatch(r"[<>=|][fiu][1248]", byte_order + code):
        raise TypeError(f"an array of {byte_order}{code} holds no numbers")
    numbers = np.frombuffer(content, byte_order + code).reshape(shape, order="F" if is_fortran else "C")
    return numbers.astype(np.float64)
