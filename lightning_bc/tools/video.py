"""Videos: episodes of the selection bank, drawn by the environment itself.

The one loop plays the episodes as it plays the curve's; what was played is then repeated in ``gymnasium.make``'s own
environment, which draws each moment. Several policies play the same episodes and stand side by side.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2 as imageio
import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from PIL import Image, ImageDraw
from tqdm import tqdm

from lightning_bc.api import load
from lightning_bc.api.policy import environment_of
from lightning_bc.bounds import PositiveInt
from lightning_bc.demonstrations.experts import Expert, check_fits, load_expert
from lightning_bc.environments import environment_spaces, make, quiet_model_loading
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.errors import InputError, needs_extra
from lightning_bc.files import new_file
from lightning_bc.references import decimals_of

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".gif")
"""Of containers for H.264, and of animated pictures."""

GIF_WIDTH, GIF_COLOURS = 240, 64
"""Of an animated picture, pixels per policy and colours per frame: it is for a page, and should load fast."""

DEFAULT_FRAME_RATE = 30
"""Frames a second where an environment does not say."""

Shot = tuple[np.ndarray, float]
"""A picture, (height, width, 3) uint8, and the return up to it."""


def film(
    ckpt_path: str,
    output: str,
    episodes: PositiveInt = 1,
    expert: str | None = None,
    steps: PositiveInt | None = None,
    env: str | None = None,
) -> None:
    """Play a checkpoint's policy and write a video of it.

    The episodes are the first of the selection bank, with deterministic actions, one after another.

    Args:
        ckpt_path: the checkpoint, for example checkpoints/RUN/last.ckpt, the name of a run, or whatever else ``evaluate``
            plays.
        output: the video to write: .mp4, .mkv, .mov or .avi, or a small animated picture: .gif.
        episodes: how many.
        expert: an expert, as ``collect --expert`` takes it, that plays the same episodes at the learner's side.
        steps: how many of each episode are drawn; default: all.
        env: Gymnasium id; default: what the checkpoint says.

    Raises:
        InputError: the checkpoint or the expert cannot be read, they do not fit together, the file exists or is no
            video's, or nothing can be drawn here.
    """
    if Path(output).suffix not in SUFFIXES:
        raise InputError(f"--output {output}: wanted a file that ends in {', '.join(SUFFIXES)}.")
    learner = load(ckpt_path, environment_id=env)
    environment_id = env or environment_of(learner)
    check_fits(learner, ckpt_path, environment_id)
    policies: dict[str, Expert] = {"learner": learner}
    if expert is not None:
        policies["expert"] = load_expert(expert, environment_id)
    path = new_file(output)
    returns = write_video(path, environment_id, policies, episodes, steps=steps)
    decimals = _decimals(returns.values())
    for name, values in returns.items():
        print(f"{name:8} return {', '.join(f'{value:.{decimals}f}' for value in values)}")
    print(f"video    {path}")


def write_video(
    path: Path,
    environment_id: str,
    policies: Mapping[str, Expert],
    episodes: int = 1,
    device: torch.device | str = "cpu",
    steps: int | None = None,
) -> dict[str, list[float]]:
    """Write a video of the first ``episodes`` of the selection bank, deterministic actions, policies side by side.

    From the first observation to the end of each episode, at the environment's own rate; who ends earlier stands still
    until the other does. Each picture bears its policy's name and its return so far.

    Args:
        path: file to write, in one move; the folder exists.
        environment_id: a Gymnasium id.
        policies: who plays, by the name to show.
        episodes: how many, one after another.
        device: where the policies compute.
        steps: how many of each episode are drawn; None for all.

    Returns:
        The return of each episode, as far as it was drawn, by name.

    Raises:
        InputError: nothing can be drawn here; the message says what is missing.
    """
    if find_spec("imageio_ffmpeg") is None:
        raise needs_extra("a video", "video", "imageio-ffmpeg")
    seeds = SELECTION_BANK.seeds(episodes)
    environments, spaces = [_drawing(environment_id) for _ in policies], environment_spaces(environment_id)
    bounds = spaces.action_low, spaces.action_high
    played, earned = [], []                                         # of each policy, each episode's actions and return
    for policy in policies.values():
        plain = make(environment_id, 1)
        record = play(policy.player(), plain, seeds, record=True, device=device)
        plain.close()
        assert record.actions is not None
        earned.append(record.returns)
        played.append([actions[:steps] for actions in np.split(record.actions, record.lengths.cumsum()[:-1])])

    returns: dict[str, list[float]] = {name: [] for name in policies}
    decimals = _decimals(earned)
    rate = environments[0].metadata.get("render_fps", DEFAULT_FRAME_RATE)
    frames = sum(1 + max(map(len, episode)) for episode in zip(*played, strict=True))
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
        tqdm(total=frames, unit=" frames", desc=f"drawing {path.name}", mininterval=0.5) as bar,
    ):
        unfinished = Path(folder, path.name)
        animated = path.suffix == ".gif"
        # H.264 wants even widths and heights, and no more than that; a picture repeats for ever
        options: dict[str, Any] = {"loop": 0} if animated else {"macro_block_size": 2}
        with imageio.get_writer(unfinished, fps=rate, **options) as video:
            for seed, *actions in zip(seeds, *played, strict=True):
                shots = map(_shots, environments, itertools.repeat(seed), actions, itertools.repeat(bounds))
                for now in _together(shots):
                    frame = np.hstack([_labelled(name, shot, decimals) for name, shot in zip(policies, now, strict=True)])
                    video.append_data(_small(frame) if animated else frame)  # type: ignore[attr-defined]
                    bar.update()
                for name, (_, total) in zip(policies, now, strict=True):
                    returns[name].append(total)
        unfinished.replace(path)
    for environment in environments:
        environment.close()
    return returns


def _drawing(environment_id: str) -> gymnasium.Env:
    """An environment that draws itself, tried."""
    try:
        with quiet_model_loading(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*not in the possible render_modes")  # the error below says it
            environment = gymnasium.make(environment_id, render_mode="rgb_array")
        if isinstance(environment.unwrapped, MujocoEnv):
            _choose_renderer()
            _follow(environment.unwrapped)
        environment.reset(seed=SELECTION_BANK.first)
        environment.render()
    except Exception as error:                                      # each renderer has errors of its own
        # pip before 23.3 takes an extra only as metadata spells it, gymnasium[classic-control]
        words = re.sub(r"(?<=gymnasium\[)\w+(?=\])", lambda extra: extra[0].replace("_", "-"), str(error))
        takes_none = isinstance(error, TypeError) and "render_mode" in words
        hint = ". Its class has to take render_mode=\"rgb_array\", and render() to give pictures" * takes_none
        raise InputError(f"{environment_id} cannot be drawn here: {words}{hint}") from error
    return environment


def _follow(environment: MujocoEnv) -> None:
    """Draw with the model's own tracking camera: Gymnasium's default stands still where it names no body to look at."""
    camera = mujoco.mj_name2id(environment.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if camera >= 0 and environment.mujoco_renderer.camera_id < 0:
        environment.mujoco_renderer.camera_id = camera


def _choose_renderer() -> None:
    """Set MUJOCO_GL, unless it is set, to what draws without a screen: EGL, else OSMesa.

    Each is tried in a process of its own, since a process can load one kind of OpenGL only.
    """
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ:
        return
    for renderer in ("egl", "osmesa"):
        trial = f"from mujoco.{renderer} import GLContext; GLContext(64, 64)"
        if subprocess.run([sys.executable, "-c", trial], capture_output=True, check=False).returncode == 0:
            os.environ["MUJOCO_GL"] = renderer
            return
    raise InputError(
        "neither EGL nor OSMesa works. On Debian and Ubuntu, install libegl1 and libgl1-mesa-dri, or libosmesa6."
    )


def _shots(
    environment: gymnasium.Env, seed: int, actions: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]
) -> Iterator[Shot]:
    """An episode, from its first moment to its last; actions are clipped to the ``bounds``, as where they were played."""
    environment.reset(seed=seed)
    total = 0.0
    yield _draw(environment), total
    for action in actions:
        _, reward, *_ = environment.step(action.clip(*bounds))
        total += np.asarray(reward, dtype=float).item()           # some give an array of one element
        yield _draw(environment), total


def _draw(environment: gymnasium.Env) -> np.ndarray:
    """The picture of this moment."""
    renderer = getattr(environment.unwrapped, "mujoco_renderer", None)
    if renderer is not None and renderer.viewer is not None:
        renderer.viewer.make_context_current()                      # gymnasium expects no second environment beside
    return np.asarray(environment.render())


def _together(films: Iterable[Iterator[Shot]]) -> Iterator[list[Shot]]:
    """The shots of all at each moment; who has ended stands still."""
    now: list[Shot] = []
    for shots in itertools.zip_longest(*films):
        now = [shot or before for shot, before in itertools.zip_longest(shots, now)]
        yield now


def _decimals(returns: Iterable[Sequence[float] | np.ndarray]) -> int:
    """With how many decimals the returns of all policies' episodes are shown."""
    return decimals_of(max(float(np.abs(values).max()) for values in returns))


def _labelled(name: str, shot: Shot, decimals: int) -> np.ndarray:
    """The picture with the policy's name and its return so far."""
    image = Image.fromarray(shot[0])
    label = f"{name}  {shot[1]:.{decimals}f}"
    ImageDraw.Draw(image).text((12, 8), label, fill="white", stroke_fill="black", stroke_width=2, font_size=22)
    return np.asarray(image)


def _small(frame: np.ndarray) -> np.ndarray:
    """The picture in the size and colours of an animated one."""
    image = Image.fromarray(frame)
    image.thumbnail((GIF_WIDTH * frame.shape[1] // frame.shape[0], GIF_WIDTH))
    return np.asarray(image.quantize(GIF_COLOURS, dither=Image.Dither.NONE).convert("RGB"))
