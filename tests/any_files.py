"""Files of demonstrations as anybody may have them, made by Hypothesis: right, nearly right, and wrong in every way."""

import os
import pickle

import numpy as np
from hypothesis import strategies as st

from lightning_bc.demonstrations.readers._names import NAMES

DIMENSIONS = {"observations": 3, "actions": 1}                      # of Pendulum-v1, which these are said to be of

NUMBERS = {
    "plain": lambda rng, shape: rng.uniform(-1, 1, shape),
    "large": lambda rng, shape: rng.uniform(-2, 2, shape) * 10.0 ** rng.integers(-30, 30),
    "zeros": lambda rng, shape: np.zeros(shape),
    "whole": lambda rng, shape: rng.integers(-3, 9, shape),
    "yes or no": lambda rng, shape: rng.integers(0, 2, shape),
    "one NaN": lambda rng, shape: _with(np.nan, rng, shape),
    "one Inf": lambda rng, shape: _with(-np.inf, rng, shape),
    "one outlier": lambda rng, shape: _with(1e30, rng, shape),
    "at the end of float32": lambda rng, shape: rng.choice([-3.4e38, 3.4e38], shape),
    "beyond float32": lambda rng, shape: np.full(shape, 1e300),
    "denormal": lambda rng, shape: np.full(shape, 1e-320),
}
DTYPES = ["f4", "f4", "f8", "f2", ">f4", ">f8", "g", "i1", "i8", ">i4", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
DTYPES += ["S3", "U3", "O", "M8[s]"]
ORDERS = {
    "C": lambda array: array,
    "Fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, 0)[::2] if array.ndim else array,
    "backwards": lambda array: array[::-1].copy()[::-1] if array.ndim else array,
    "transposed": lambda array: array.T.copy().T,
    "masked": lambda array: np.ma.masked_array(array, np.zeros(array.shape, bool)),
    "broadcast": lambda array: np.broadcast_to(array[:1], array.shape) if array.ndim and len(array) else array,
    "read-only": lambda array: np.broadcast_to(array.copy(), array.shape),  # of objects too
}
OTHERS = [
    None, 3, -1.5, True, "text", b"bytes", [], (), {}, [[1.0], [1.0, 2.0]], [None, None], [np.zeros(3)], [np.zeros((2, 1))],
    {"a": 1}, {1: {2: 3}}, range(4), 1j, 2**70, float("nan"), float("inf"), "NaN", {"environment_id": 3}, {"seed": "x"},
    {"environment_id": "Pendulum-v1", "seed": 2**80}, np.array([np.zeros(2), np.zeros(3), None], dtype=object),
    np.zeros(2, [("x", "f4")]), np.float16(1), np.array(5.0), np.array("a"), np.array([[["a"]]]), {"expert": "x"},
]  # fmt: skip
KEYS = ["", "a", "b", "camera", 0, (1,), None, b"obs", "obs/a", "x" * 300, "ä", "demo_0", "data"]


def _with(value, rng, shape):
    array = np.asarray(rng.uniform(-1, 1, shape))
    if array.size:
        array.flat[rng.integers(array.size)] = value
    return array


@st.composite
def arrays(draw, shape):
    """An array of that shape: of any type, order and kind of numbers, most often plain floats."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    with np.errstate(all="ignore"):
        made = np.asarray(NUMBERS[draw(st.sampled_from(list(NUMBERS)))](rng, shape))
        dtype = draw(st.sampled_from(DTYPES))
        made = made.astype("i8").astype(dtype) if dtype.startswith("M") else made.astype(dtype)
    return ORDERS[draw(st.sampled_from(list(ORDERS)))](made)


@st.composite
def values(draw, shape):
    """Anything in place of an array of that shape."""
    kind = draw(st.sampled_from(["same shape"] * 3 + ["other shape", "other", "entries", "list", "itself"]))
    if kind == "other shape":
        pairs = shape[0] if shape else 4
        others = [(), (pairs,), (pairs, 1), (1, pairs), (0, *shape[1:]), (*shape, 0), (*shape, 2), (2, *shape)]
        shape = draw(st.sampled_from([*others, (pairs + 1, 3), (pairs, 3), (pairs, 2, 2), (pairs, 4, 4, 3), (2, 2, 2)]))
    if kind == "other":
        return draw(st.sampled_from(OTHERS))
    if kind == "entries":
        keys = draw(st.lists(st.sampled_from(KEYS), max_size=3, unique_by=repr))
        return {key: draw(arrays((*shape[:1], *draw(st.sampled_from([(), (1,), (2,), (3,), (4, 4, 3)]))))) for key in keys}
    if kind == "itself":
        endless = draw(st.sampled_from([{}, []]))
        endless.update(a=endless) if isinstance(endless, dict) else endless.append(endless)
        return endless
    made = draw(arrays(shape))
    return made.tolist() if kind == "list" else made


@st.composite
def arranged(draw, lengths=None):
    """One dictionary of flat arrays under any of the usual names, with up to three things wrong."""
    given = lengths
    lengths = lengths or draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    rng, pairs = np.random.default_rng(draw(st.integers(0, 99))), sum(lengths)
    more = draw(st.sampled_from([0, 0, len(lengths)]))
    flags = rng.integers(0, 2, pairs).astype(bool)
    ends = np.isin(np.arange(pairs), np.cumsum(lengths) - 1)
    plain = {
        "observations": rng.normal(size=(pairs + more, 3)).astype("f4"),
        "actions": rng.uniform(-2, 2, (pairs, 1)).astype("f4"),
        "rewards": rng.normal(size=pairs),
        "next_observations": rng.normal(size=(pairs, 3)).astype("f4"),
        "terminated": ends & flags,
        "timeouts": ends & ~flags,
        "dones": ends.astype("f4"),
        "episode_starts": np.roll(ends, 1),
        "indices": np.cumsum(lengths)[:-1],
        "episode_lengths": np.array(lengths),
        "final_observations": rng.normal(size=(len(lengths), 3)),
        "mean_reward": -3.0,
        "std_reward": 0.5,
        "random_returns": rng.normal(size=5),
        "expert_returns": rng.normal(size=5),
        "metadata": {"environment_id": "Pendulum-v1", "seed": 1},
    }
    optional = st.lists(st.sampled_from([key for key in plain if key not in DIMENSIONS]), max_size=4, unique=True)
    keys = ["observations", "actions", *draw(optional)] if given is None else ["observations", "actions", "rewards"]
    made = {draw(st.sampled_from(NAMES[key])): plain[key] for key in keys}
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        key = draw(st.sampled_from([*keys, *plain]))
        name = draw(st.sampled_from([*NAMES[key], *made]))
        if draw(st.integers(0, 9)) == 0:
            made.pop(name, None)
        else:
            made[name] = draw(values(np.shape(plain[key]) if not isinstance(plain[key], dict) else ()))
    return made


@st.composite
def contents(draw):
    """A file's content in any layout."""
    layout = draw(st.sampled_from(["flat", "flat", "list", "names", "pairs", "columns", "stack", "pair", "other"]))
    if layout == "flat":
        return draw(arranged())
    if layout == "other":
        return draw(values((4, 3)))
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    lengths = [3] * len(lengths) if layout == "stack" else lengths
    episodes = [draw(arranged((length,))) for length in lengths]
    if layout == "list":
        return episodes
    if layout == "names":
        return {f"demo_{number}": episode for number, episode in enumerate(episodes)}
    pairs = [tuple(episode.values())[:2] for episode in episodes]
    if layout in ("pairs", "pair"):
        return pairs if layout == "pairs" else pairs[0]
    columns = {name: [episode.get(name) for episode in episodes] for name in episodes[0]}
    if layout == "stack":
        try:
            return {name: np.stack(column) for name, column in columns.items()}
        except (TypeError, ValueError):
            return columns
    return columns


keys = st.sampled_from([()] * 9 + [("a",), ("b", "a"), ("camera",), ("a", "a"), ("obs/a",), ("",)])


class Canary:
    """A pickle that would make a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@st.composite
def with_canary(draw, content, file):
    """A content with an object that would run, somewhere in it; pickled."""
    bomb = draw(st.sampled_from([Canary(file), [Canary(file)], np.array([Canary(file)], dtype=object), {"x": Canary(file)}]))
    if isinstance(content, dict):
        content = content | {draw(st.sampled_from(["infos", "metadata", "observations", "obs"])): bomb}
    else:
        content = [content, bomb]
    return pickle.dumps(content, draw(st.integers(0, 5)))


@st.composite
def damaged(draw, whole):
    """Bytes of a file that was cut, or in which some are others."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
