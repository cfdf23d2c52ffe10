"""NumPy's functions for torch's kernels, by the kernels' names: what acting.py builds policies from.

Arguments are those of the kernel, arrays in place of tensors. A kernel that is not here is called as it is.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Array = np.ndarray


def of(kernel: Any, settings: dict[str, Any]) -> Callable[..., Any]:
    """The function for ``kernel``, called with keywords ``settings``; it can be pickled."""
    name = f"{kernel.overloadpacket.__name__}.{kernel._overloadname}"
    if name == "_to_copy.default" and [*settings] == ["dtype"]:
        return functools.partial(_as_type, dtype=numpy_type(settings["dtype"]))
    if name == "clone.default":                                     # nothing is written into, and NumPy knows strides
        return _same
    function = KERNELS.get(name)
    if function is not None and not settings:
        return function
    settings = {key: "cpu" if key == "device" else value for key, value in settings.items()}
    return functools.partial(_by_torch, name, settings)


def numpy_type(dtype: torch.dtype) -> np.dtype:
    """The same type of numbers."""
    return np.dtype(str(dtype).removeprefix("torch."))


def _as_type(array: Array, dtype: np.dtype) -> Array:
    return array.astype(dtype)


def cast(function: Callable[..., Any], dtype: Any, *arguments: Any) -> Array:
    """What ``function`` answers, as ``dtype``: NumPy makes float64 of float32 and int64, torch float32."""
    return np.asarray(function(*arguments), dtype)


def item(values: list[Array], index: int) -> Array:
    """One of several results."""
    return values[index]


def _by_torch(name: str, settings: dict[str, Any], *arguments: Any) -> Any:
    packet, _, overload = name.rpartition(".")
    return _to_numpy(getattr(getattr(torch.ops.aten, packet), overload)(*map(_to_torch, arguments), **settings))


def _to_torch(one: Any) -> Any:
    if isinstance(one, Array):                                      # fused kernels take the last axis for contiguous
        return torch.from_numpy(np.asarray(one, order="C") if one.flags.writeable else one.copy())
    return [_to_torch(other) for other in one] if isinstance(one, list) else one


def _to_numpy(one: Any) -> Any:
    if one is None:                                                 # of several results one that is not there
        return None
    return one.numpy() if isinstance(one, torch.Tensor) else [_to_numpy(other) for other in one]


_found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
HAS_AVX512 = any(name == "X86_V4" or name.startswith("AVX512") for name in _found)
"""Whether the processor has it."""

FEW_ROWS, MORE_ROWS, LARGE = 8, range(16, 25), 2**14
"""OpenBLAS has kernels for up to 15 rows, three times as fast where the processor has AVX-512: of so many more rows products
with a large matrix are made by blocks of a few."""


def addmm(bias: Array, left: Array, right: Array) -> Array:
    """bias + left right."""
    product = mm(left, right)
    product += bias
    return product


def mm(left: Array, right: Array) -> Array:
    """left right."""
    if not (HAS_AVX512 and len(left) in MORE_ROWS and right.size >= LARGE):
        return np.dot(left, right)
    product = np.empty((len(left), right.shape[1]), np.result_type(left, right))
    for first in range(0, len(left), FEW_ROWS):
        rows = slice(first, first + FEW_ROWS)
        np.dot(left[rows], right, out=product[rows])
    return product


def relu(array: Array, zero: Any = 0) -> Array:
    """max(a, 0)."""
    return np.maximum(array, zero)


def relu_in_place(array: Array, zero: Any = 0) -> Array:
    """The same, where nothing else needs the array."""
    return np.maximum(array, zero, out=array)


def reshape(array: Array, shape: list[int]) -> Array:
    """The same numbers in another shape."""
    return array.reshape(shape)


def _unsqueeze(array: Array, dim: int) -> Array:
    return array[(slice(None),) * (dim % (array.ndim + 1)) + (None,)]


def _pow(array: Array, exponent: float) -> Array:
    return np.square(array) if exponent == 2 else np.power(array, exponent)


def clamp(array: Array, low: Any = None, high: Any = None) -> Array:
    """min(max(a, low), high); None bounds nothing."""
    if low is not None:
        array = np.maximum(array, low)
    return array if high is None else np.minimum(array, high)


def _cat(arrays: list[Array], dim: int = 0) -> Array:
    return np.concatenate(arrays, dim)


def _stack(arrays: list[Array], dim: int = 0) -> Array:
    return np.stack(arrays, dim)


def _transpose(array: Array) -> Array:
    return array.T


def _permute(array: Array, dims: list[int]) -> Array:
    return array.transpose(dims)


def _select(array: Array, dim: int, index: int) -> Array:
    return array[(slice(None),) * (dim % array.ndim) + (index,)]


def _slice(array: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    return array[(slice(None),) * (dim % array.ndim) + (slice(start, end, step),)]


def _squeeze(array: Array, dim: int) -> Array:
    return array.squeeze(dim) if array.shape[dim] == 1 else array


def _expand(array: Array, shape: list[int]) -> Array:
    missing = len(shape) - array.ndim
    wanted = tuple(array.shape[n - missing] if size == -1 else size for n, size in enumerate(shape))
    if array.shape == wanted:
        return array
    expanded = np.empty(wanted, array.dtype)
    expanded[...] = array                                           # broadcast_to costs ten times as much on small arrays
    return expanded


def _split(array: Array, sizes: list[int], dim: int = 0) -> list[Array]:
    ends = list(itertools.accumulate(sizes))
    return [_slice(array, dim, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _halves(array: Array, size: int, dim: int = 0) -> list[Array]:
    return [_slice(array, dim, start, start + size) for start in range(0, array.shape[dim], size)]


def _index(array: Array, indices: list[Array | None]) -> Array:
    return array[tuple(slice(None) if index is None else index for index in indices)]


def _gather(array: Array, dim: int, index: Array) -> Array:
    if array.ndim == 2 and dim in (1, -1):                          # take_along_axis costs several times as much
        return array[np.arange(len(index))[:, None], index]
    return np.take_along_axis(array, index, dim)


def _argmax(array: Array, dim: Any = None, keepdim: bool = False) -> Array:
    return np.asarray(array.argmax(dim, keepdims=keepdim))


def _dims(dim: int | list[int] | None) -> Any:
    return tuple(dim) or None if isinstance(dim, list) else dim


@functools.cache
def _column(rows: int, value: float, dtype: np.dtype) -> Array:
    """(rows, 1): by a product with ones or shares the last axis is summed in a third of the time, where it is short."""
    return np.full((rows, 1), value, dtype)


def _sum(array: Array, dim: Any = None, keepdim: bool = False) -> Array:
    if array.dtype.kind == "f" and dim in ([-1], [array.ndim - 1]):
        total = array @ _column(array.shape[-1], 1, array.dtype)
        return total if keepdim else total[..., 0]
    return np.asarray(array.sum(_dims(dim), keepdims=keepdim))


def _mean(array: Array, dim: Any = None, keepdim: bool = False) -> Array:
    return np.asarray(array.mean(_dims(dim), keepdims=keepdim))


def _amax(array: Array, dim: Any = (), keepdim: bool = False) -> Array:
    return np.asarray(array.max(_dims(dim), keepdims=keepdim))


def _logsumexp(array: Array, dim: Any, keepdim: bool = False) -> Array:
    dims = _dims(dim)
    largest = array.max(dims, keepdims=True)
    shifted = array - largest
    summed = np.log(np.exp(shifted, out=shifted).sum(dims, keepdims=True)) + largest
    return summed if keepdim else summed.squeeze(dims)


def _log_softmax(array: Array, dim: int, _: bool) -> Array:
    return array - _logsumexp(array, dim, keepdim=True)


def _softmax(array: Array, dim: int, _: bool) -> Array:
    exponentials = np.exp(array - array.max(dim, keepdims=True))
    exponentials /= exponentials.sum(dim, keepdims=True)
    return exponentials


def _safe_softmax(array: Array, dim: int, _: Any = None) -> Array:
    """Zeros where all is masked, which is -inf; else the sum of exponentials is at least 1, that of the largest."""
    largest = np.maximum(np.maximum.reduce(array, dim, keepdims=True), np.finfo(array.dtype).min)
    exponentials = np.exp(array - largest)
    exponentials /= np.maximum(np.add.reduce(exponentials, dim, keepdims=True), 1)
    return exponentials


def _lerp(start: Array, end: Array, weight: Any) -> Array:
    return start + weight * (end - start)


def _rsub(array: Array, other: Any, alpha: float = 1) -> Array:
    return other - array if alpha == 1 else other - alpha * array


def _sigmoid(array: Array) -> Array:
    with np.errstate(over="ignore"):                                # 1 / inf is 0, as it shall be
        return 1 / (1 + np.exp(-array))


def _silu(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array / (1 + np.exp(-array))


def _elu(array: Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    return scale * np.where(array > 0, array, alpha * np.expm1(input_scale * np.minimum(array, 0)))


def _layer_norm(array: Array, shape: list[int], weight: Array | None, bias: Array | None, eps: float) -> list[Array]:
    if len(shape) > 1:
        return _by_torch("native_layer_norm.default", {}, array, shape, weight, bias, eps)
    shares = _column(shape[0], 1 / shape[0], array.dtype)
    mean = array @ shares                                           # (..., 1)
    normalised = array - mean
    scale = np.square(normalised) @ shares
    scale += array.dtype.type(eps)
    np.reciprocal(np.sqrt(scale, out=scale), out=scale)
    normalised *= scale
    if weight is not None:
        normalised *= weight
    if bias is not None:
        normalised += bias
    return [normalised, mean, scale]


def _same(array: Array) -> Array:
    return array


RESHAPING = {reshape, _unsqueeze, _squeeze, _expand, _same}
"""Which give the same numbers in the same order, where they give as many of them."""

SELECTING = {_index, _gather}
"""Whose whole numbers say what is taken, and do not mix with the others."""

KERNELS: dict[str, Callable[..., Any]] = {
    "_log_softmax.default": _log_softmax,
    "_safe_softmax.default": _safe_softmax,
    "_softmax.default": _softmax,
    "_unsafe_view.default": reshape,
    "abs.default": np.abs,
    "add.Scalar": np.add,
    "add.Tensor": np.add,
    "addmm.default": addmm,
    "alias.default": _same,
    "amax.default": _amax,
    "argmax.default": _argmax,
    "bmm.default": np.matmul,
    "cat.default": _cat,
    "clamp.default": clamp,
    "clamp_max.default": np.minimum,
    "clamp_min.default": np.maximum,
    "cos.default": np.cos,
    "detach.default": _same,
    "div.Scalar": np.true_divide,
    "div.Tensor": np.true_divide,
    "elu.default": _elu,
    "exp.default": np.exp,
    "expand.default": _expand,
    "gather.default": _gather,
    "index.Tensor": _index,
    "lerp.Scalar": _lerp,
    "lerp.Tensor": _lerp,
    "log.default": np.log,
    "logsumexp.default": _logsumexp,
    "maximum.default": np.maximum,
    "mean.dim": _mean,
    "minimum.default": np.minimum,
    "mm.default": mm,
    "mul.Scalar": np.multiply,
    "mul.Tensor": np.multiply,
    "native_layer_norm.default": _layer_norm,
    "neg.default": np.negative,
    "permute.default": _permute,
    "pow.Tensor_Scalar": _pow,
    "reciprocal.default": np.reciprocal,
    "relu.default": relu,
    "rsub.Scalar": _rsub,
    "select.int": _select,
    "sigmoid.default": _sigmoid,
    "silu.default": _silu,
    "sin.default": np.sin,
    "slice.Tensor": _slice,
    "split.Tensor": _halves,
    "split_with_sizes.default": _split,
    "sqrt.default": np.sqrt,
    "square.default": np.square,
    "squeeze.dim": _squeeze,
    "stack.default": _stack,
    "sub.Tensor": np.subtract,
    "sum.dim_IntList": _sum,
    "t.default": _transpose,
    "tanh.default": np.tanh,
    "transpose.int": np.swapaxes,
    "unsqueeze.default": _unsqueeze,
    "view.default": reshape,
    "where.self": np.where,
}
