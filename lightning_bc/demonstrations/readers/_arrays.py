"""Values of a demonstration file as tensors and numbers: whatever converts without another meaning, or a refusal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_bc.errors import InputError

_COMPUTED = {
    **dict.fromkeys((torch.uint16, torch.uint32, torch.uint64), torch.int64),
    **dict.fromkeys((torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz), torch.float32),
    torch.complex32: torch.complex64,
}
"""Types with which torch hardly computes, by the one that is taken; those from 2**63 become negative, which none may be."""

_JITTER = 1e-9
"""What varies by less than this share is a constant that was computed again and again."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_KNOWN = (*_FLOATS, *_WHOLE, torch.bool, torch.complex64, torch.complex128)


def tensor_of(path: str, key: str, value: Any, wanted: str) -> Tensor:
    """Any array as a tensor that needs no gradient."""
    try:
        if isinstance(value, list | tuple):                         # torch takes rows one by one, which is slow
            value = np.asarray(value)
        if isinstance(value, np.ndarray):                           # byte orders and strides that torch does not know
            dtype = np.float64 if value.dtype == np.longdouble else value.dtype.newbyteorder("=")
            value = np.require(value.astype(dtype, copy=False), requirements=["C", "W"]).reshape(value.shape)
        found = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        kind = f"an array of {_words(value.dtype)}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise InputError(f"{path}: {key} is {kind}, wanted {wanted}.") from error
    found = found.to(_COMPUTED.get(found.dtype, found.dtype)) if found.layout == torch.strided else found
    if found.layout != torch.strided or found.dtype not in _KNOWN or found.is_nested or found.device.type != "cpu":
        kind = "nested rows" if found.is_nested else str(found.layout)
        raise InputError(f"{path}: {key} is a tensor of {kind}, {found.dtype}, {found.device}; wanted {wanted}.")
    return found


def _words(dtype: np.dtype[Any]) -> str:
    """A type of NumPy that holds no numbers."""
    if dtype.fields:
        return f"rows with the fields {', '.join(dtype.fields)}"
    return {"U": "words", "S": "bytes", "O": "Python objects"}.get(dtype.kind, str(dtype))


def matrix_of(path: str, key: str, value: Any, rows: str) -> Tensor:
    """A finite array, (rows, dimensions), as float32."""
    wanted = f"({rows}, {'observation_dim' if key.endswith('observations') else 'action_dim'})"
    found = tensor_of(path, key, value, f"an array of shape {wanted}")
    if not found.is_floating_point():
        raise InputError(
            f"{path}: {key} has type {str(found.dtype).removeprefix('torch.')}, wanted floating point (float32). Where they "
            "are quantities, write them with .astype('float32')."
        )
    if found.ndim == 1:
        raise InputError(
            f"{path}: {key} has shape {tuple(found.shape)}, wanted {wanted}. Where each is a single number, write them with "
            ".reshape(-1, 1)."
        )
    return _finite(path, key, found, 2, wanted)


def rounded_away(given: Tensor, read: Tensor) -> tuple[int, ...]:
    """The dimensions of (rows, dimensions) that are constant only as they are ``read``, in float32."""
    if given.dtype != torch.float64:
        return ()
    (low, high), (least, greatest) = given.aminmax(dim=0), read.aminmax(dim=0)
    varied = high - low > _JITTER * high.abs()
    return tuple((varied & (least == greatest)).nonzero()[:, 0].tolist())


def column_of(path: str, key: str, value: Any, rows: str) -> Tensor:
    """A finite array, (rows,) or (rows, 1), as float32; whole numbers too."""
    found = _flat(tensor_of(path, key, value, f"an array of shape ({rows},)"))
    if found.is_complex():
        raise InputError(f"{path}: {key} has type {found.dtype}, wanted floating point (float32).")
    return _finite(path, key, found, 1, f"({rows},)")


def flags_of(path: str, key: str, value: Any, rows: str) -> Tensor:
    """Yes or no, also written as ones and zeros, (rows,) or (rows, 1), as bool."""
    found = _flat(tensor_of(path, key, value, f"an array of yes or no, one per {rows}"))
    if found.ndim != 1 or not ((found == 0) | (found == 1)).all():
        raise InputError(f"{path}: {key} must be yes or no for each {rows}; found shape {tuple(found.shape)}.")
    return found.to(torch.bool)


def lengths_of(path: str, value: Any, pairs: int) -> Tensor:
    """Steps of each episode, (episodes,) int64, which sum to ``pairs``."""
    found = tensor_of(path, "episode_lengths", value, "an array of positive integers")
    lengths = as_whole(found)
    fit = is_whole(lengths) and lengths.ndim == 1 and bool(((lengths > 0) & (lengths <= pairs)).all())
    if not fit or lengths.sum() != pairs:
        raise InputError(
            f"{path}: episode_lengths must be positive integers that sum to the number of pairs, {pairs}; found "
            f"shape {tuple(found.shape)}, {found.dtype}, sum {lengths.sum().item()}."
        )
    return lengths


def as_whole(found: Tensor) -> Tensor:
    """Integers as int64, also those written as floating point; anything else as it is."""
    is_float = found.is_floating_point() and bool((found == found.round()).all() and (found.abs() < 2**53).all())
    return found.to(torch.int64) if is_float or is_whole(found) else found


def is_whole(found: Tensor) -> bool:
    """Whether a tensor holds integers."""
    return not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)


def number_of(path: str, key: str, content: Mapping[str, Any]) -> float | None:
    """One number, also as an array of one element."""
    value = content.get(key)
    if value is None:
        return None
    try:
        if isinstance(value, Tensor | np.ndarray):
            value = value.item()
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{path}: {key} is a {type(value).__name__}, wanted one number.") from error
    if not np.isfinite(number):
        raise InputError(f"{path}: {key} is {number}, wanted a finite number.")
    return number


def returns_of(path: str, key: str, content: Mapping[str, Any]) -> tuple[float, ...]:
    """Finite returns of episodes; none where the key is absent."""
    if content.get(key) is None:
        return ()
    returns = tensor_of(path, key, content[key], "an array of returns")
    returns = returns if returns.is_complex() else returns.to(torch.float64)
    if returns.is_complex() or returns.ndim != 1 or returns.numel() == 0 or not returns.isfinite().all():
        raise InputError(
            f"{path}: {key} must be finite returns of shape (episodes,); found shape {tuple(returns.shape)}, mean "
            f"{returns.mean().item()}. Remove the key, or collect again with python -m lightning_bc collect."
        )
    return tuple(returns.tolist())


def _flat(found: Tensor) -> Tensor:
    """A column as a vector; one value, as of one episode, too."""
    if found.ndim == 0:
        return found.unsqueeze(0)
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def _finite(path: str, key: str, found: Tensor, ndim: int, wanted: str) -> Tensor:
    if found.ndim != ndim:
        raise InputError(f"{path}: {key} has shape {tuple(found.shape)}, wanted {wanted}.")
    if found.numel() == 0:
        raise InputError(f"{path}: {key} is empty, shape {tuple(found.shape)}. Collect at least one episode.")
    given, found = found, found.to(torch.float32)
    if not torch.isfinite(found.sum(dtype=torch.float64)):          # one pass without a mask of the array's size
        is_bad = ~torch.isfinite(found)
        bad = is_bad.reshape(len(found), -1).any(dim=1).nonzero()[:, 0]
        values = given[bad[0]][is_bad[bad[0]]]
        if torch.isfinite(values[0]):
            name = f"{values[0]:.3g}, more than float32 can hold"
        else:
            name = "NaN" if values.isnan().any() else "Inf"
        raise InputError(
            f"{path}: {key}[{bad[0].item()}] holds {name} (first of {len(bad)}). Remove these pairs, or collect again "
            "with python -m lightning_bc collect."
        )
    return found
