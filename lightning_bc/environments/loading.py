"""MuJoCo's warnings: that of loading, about which nobody can do anything, and those of a simulation that is unstable.

And its clock.
"""

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco

_UNSTABLE = [
    int(kind)
    for kind in (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
]

_CONSTANT = ctypes.CFUNCTYPE(ctypes.c_double)(("PyFloat_GetMin", ctypes.pythonapi))
"""A C function that takes nothing and returns always the same number; MuJoCo's batches call no Python."""


def stop_clock() -> None:
    """Let MuJoCo measure no durations (``MjData.timer``) in this process: reading its clock is 6 to 20% of a step.

    Where somebody has set a clock, it stays.
    """
    if mujoco.get_mjcb_time() is None:
        mujoco.set_mjcb_time(_CONSTANT)


def was_unstable(data: mujoco.MjData) -> bool:
    """Whether positions, velocities or accelerations were beyond numbers since the last reset: MuJoCo then begins anew."""
    return any(data.warning[kind].number for kind in _UNSTABLE)


@contextmanager
def quiet_model_loading() -> Iterator[None]:
    """Drop MuJoCo's warning that gymnasium's models use the deprecated ``settotalmass``; pass all others on.

    MuJoCo prints warnings itself, to stderr and to MUJOCO_LOG.TXT in the working directory, unless a handler is set.
    Others than this one go to the handler that was set before, else to :mod:`warnings`.
    """
    previous = mujoco.get_mju_user_warning()

    def handle(message: str) -> None:
        if "settotalmass" in message:
            return
        if previous is not None:
            previous(message)
        else:
            warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=2)

    mujoco.set_mju_user_warning(handle)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
