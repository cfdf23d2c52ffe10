"""Loading MuJoCo models without the warning that none of their users can do anything about."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco


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
