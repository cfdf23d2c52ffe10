"""Videos: what they show, how long, how fast; and what is said where none can be made."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import BUDGET, actor_state, can_draw, fit, refused
from gymnasium.spaces import Box

from lightning_bc.cli import main
from lightning_bc.episodes import SELECTION_BANK
from lightning_bc.players import Memoryless
from lightning_bc.tools.video import GIF_WIDTH, _drawing, write_video

SHORT = BUDGET.replace("max_steps 4", "max_steps 2")
SIZE = 64


class Clock(gymnasium.Env):
    """A picture that says the step (its upper part's grey) and the last action (its lower part's); it ends after ``seed``.

    The last digit of the seed, plus 2 and the first action, is the length of the episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-10, 10, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.given = seed
        self.steps, self.action, self.length = 0, 0.0, 2 + self.given % 10
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if self.steps == 0:
            self.length += int(action[0])
        self.steps, self.action = self.steps + 1, float(action[0])
        return np.full(2, self.steps, np.float32), float(action[0]), self.steps == self.length, False, {}

    def render(self):
        picture = np.zeros((3 * SIZE, 2 * SIZE, 3), np.uint8)
        picture[SIZE : 2 * SIZE] = 30 * self.steps
        picture[2 * SIZE :] = int(40 * self.action)
        return picture


class Always:
    """A policy with one action."""

    def __init__(self, value):
        self.value = value

    def player(self):
        return Memoryless(lambda observations: torch.full((len(observations), 1), self.value))


def told(frames):
    """Step and action that each picture says, (frames, pictures side by side) each; the label is above them."""
    pictures = np.split(frames.astype(float).mean(-1), frames.shape[2] // (2 * SIZE), axis=2)
    for row, scale in ((1, 30), (2, 40)):
        middle = slice(row * SIZE + 8, (row + 1) * SIZE - 8)        # away from what the compression blurs
        yield np.rint(np.array([picture[:, middle, 8:-8].mean((1, 2)) for picture in pictures]).T / scale).astype(int)


@pytest.fixture
def clock():
    gymnasium.register("Clock-v0", Clock, max_episode_steps=20)
    yield "Clock-v0"
    del gymnasium.registry["Clock-v0"]


def test_the_video_holds_each_moment_of_each_episode_side_by_side(clock, tmp_path):
    """The learner lasts 2 steps longer than the expert, and the second episode 1 step longer than the first."""
    returns = write_video(tmp_path / "clock.mp4", clock, {"learner": Always(3.0), "expert": Always(1.0)}, episodes=2)
    assert returns == {"learner": [15.0, 18.0], "expert": [3.0, 4.0]}
    frames = imageio.imread(tmp_path / "clock.mp4", plugin="FFMPEG")
    steps, actions = told(frames)
    assert steps.tolist() == [
        *([step, min(step, 3)] for step in range(6)),
        *([step, min(step, 4)] for step in range(7)),
    ]
    assert actions[1:6].tolist() == [[3, 1]] * 5
    assert imageio.immeta(tmp_path / "clock.mp4", plugin="FFMPEG")["fps"] == 7
    labels = frames[:, :SIZE].max(-1)
    assert all((labels[:, :, half].max((1, 2)) > 200).all() for half in (slice(None, 2 * SIZE), slice(2 * SIZE, None)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clock.mp4"]


def test_an_animated_picture_is_small_and_as_long_as_asked(clock, tmp_path):
    returns = write_video(tmp_path / "clock.gif", clock, {"learner": Always(3.0), "expert": Always(1.0)}, steps=4)
    assert returns == {"learner": [12.0], "expert": [3.0]}
    frames = imageio.imread(tmp_path / "clock.gif", plugin="pillow", index=None)
    assert len(frames) == 5                                         # the first observation and four steps
    assert frames[0].shape[:2] == (min(GIF_WIDTH, 3 * SIZE), 2 * min(GIF_WIDTH, 2 * SIZE))


def test_the_selection_bank_is_played(clock, tmp_path, monkeypatch):
    seeds = []
    reset = Clock.reset
    monkeypatch.setattr(Clock, "reset", lambda self, **given: (seeds.append(given.get("seed")), reset(self, **given))[1])
    write_video(tmp_path / "clock.mp4", clock, {"learner": Always(0.0)}, episodes=3)
    assert set(seeds) - {None} == set(SELECTION_BANK.seeds(3))


def test_what_is_interrupted_leaves_nothing(clock, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_bc.tools.video._labelled", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "clock.mp4", clock, {"learner": Always(0.0)})
    assert list(tmp_path.iterdir()) == []


# The command, and --rollouts.video

needs_renderer = pytest.mark.skipif(not can_draw(), reason="EGL does not work here")


@pytest.fixture
def run(data):
    return fit(data, flags=SHORT)


@needs_renderer
@pytest.mark.parametrize("environment_id", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5"])
def test_the_camera_follows_who_runs(environment_id, monkeypatch):
    """Far from where it started, the picture is as full of the robot as it was there."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    environment = _drawing(environment_id)
    environment.reset(seed=0)
    inner = environment.unwrapped
    position = inner.data.qpos.copy()
    pictures = []
    for distance in (0, 48):                                        # a multiple of the floor's pattern
        inner.set_state(position + distance * (np.arange(len(position)) == 0), inner.data.qvel)
        pictures.append(environment.render().astype(int))
    environment.close()
    colourful = [int((picture.max(-1) - picture.min(-1) > 60).sum()) for picture in pictures]
    assert colourful[0] > 200
    assert colourful[1] > colourful[0] / 2                          # the light is another there


@needs_renderer
def test_play_shows_learner_and_expert(run, capsys, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
    capsys.readouterr()
    arguments = ["play", "--ckpt_path", run, "--output", "videos/two.mp4"]
    main([*arguments, "--expert", "expert.pt"])
    printed = capsys.readouterr().out
    assert "learner  return" in printed
    assert "expert   return" in printed
    frames = imageio.imread("videos/two.mp4", plugin="FFMPEG")
    learner, expert = np.split(frames[-1].astype(float), 2, axis=1)
    assert learner.shape == (480, 480, 3)
    assert min(learner.std(), expert.std()) > 10                    # neither is blank
    assert np.abs(learner[60:] - expert[60:]).max() > 30            # they fell otherwise
    start = np.split(frames[0].astype(float), 2, axis=1)
    assert np.abs(start[0][60:] - start[1][60:]).mean() < 3         # from the same state
    before = Path("videos/two.mp4").read_bytes()
    assert "exists and is not overwritten" in refused(capsys, *arguments)
    assert Path("videos/two.mp4").read_bytes() == before


@needs_renderer
def test_a_run_leaves_a_video_on_request(data, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    name = fit(data, flags=SHORT + " --rollouts.video true")
    assert len(imageio.imread(f"lightning_logs/{name}/rollout.mp4", plugin="FFMPEG")) > 2


def test_without_a_renderer_the_run_goes_on_and_play_is_refused(data, monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "none-of-these")
    name = fit(data, flags=SHORT + " --rollouts.video true")
    printed = capsys.readouterr().out
    assert "no video: InvertedPendulum-v5 cannot be drawn here: " in printed
    assert "none-of-these" in printed
    assert printed.index("score") < printed.index("no video")
    assert "lengthen" in printed
    assert not Path(f"lightning_logs/{name}/rollout.mp4").exists()
    error = refused(capsys, "play", "--ckpt_path", f"checkpoints/{name}/last.ckpt", "--output", "one.mp4")
    assert "cannot be drawn here" in error
    assert not Path("one.mp4").exists()


def test_no_kind_of_opengl_is_said_in_words(data, monkeypatch, capsys):
    """Both trials fail in an interpreter that has no mujoco."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr("lightning_bc.tools.video.sys.executable", "false")
    with pytest.raises(ValueError, match=r"neither EGL nor OSMesa works.*install"):
        write_video(Path("one.mp4"), "InvertedPendulum-v5", {"learner": Always(0.0)})
    assert "MUJOCO_GL" not in os.environ


def test_without_imageio_ffmpeg_the_remedy_is_named(run, monkeypatch, capsys):
    monkeypatch.setattr(
        "lightning_bc.tools.video.find_spec", lambda name: None if name == "imageio_ffmpeg" else find_spec(name)
    )
    error = refused(capsys, "play", "--ckpt_path", f"checkpoints/{run}/last.ckpt", "--output", "one.mp4")
    assert "pip install 'lightning_bc[video]'" in error


def test_without_imageio_play_names_the_extra_that_brings_it(run, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "lightning_bc.tools.video")
    monkeypatch.setitem(sys.modules, "imageio.v2", None)
    error = refused(capsys, "play", "--ckpt_path", f"checkpoints/{run}/last.ckpt", "--output", "one.mp4")
    assert "play needs imageio.v2, of the optional extra video: pip install 'lightning_bc[video]'" in error


def test_bad_input_is_refused(run, capsys):
    checkpoint = f"checkpoints/{run}/last.ckpt"
    torch.save(actor_state(17, 6), "cheetah.pt")
    run_of_another_size = ["--ckpt_path", run, "--env", "Hopper-v5", "--output", "one.mp4"]
    for arguments, words in (
        (["--ckpt_path", checkpoint, "--output", "one.png"], "--output one.png: wanted a file that ends in .mp4"),
        (["--ckpt_path", checkpoint, "--output", "one.mp4", "--episodes", "0"], "--episodes 0: wanted a whole number"),
        (["--ckpt_path", "nowhere.ckpt", "--output", "one.mp4"], "nowhere.ckpt: no such checkpoint"),
        (["--ckpt_path", "cheetah.pt", "--output", "one.mp4"], "cheetah.pt: does not say of which environment it is"),
        (run_of_another_size, f"checkpoints/{run}/last.ckpt: is an expert for 4-dimensional observations; Hopper-v5 has 11"),
        (["--ckpt_path", checkpoint, "--output", "one.mp4", "--expert", "cheetah.pt"], "17-dimensional observations"),
        (["--ckpt_path", checkpoint, "--output", "cheetah.pt/one.mp4"], "its folder cannot be made"),
        (["--ckpt_path", checkpoint, "--output", "one.mp4", "--episods", "2"], "episods"),
    ):
        assert words in refused(capsys, "play", *arguments)
        assert not Path("one.mp4").exists()


@pytest.mark.skipif(find_spec("pygame") is not None, reason="pygame is installed")
def test_an_environment_without_its_renderer_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"Pendulum-v1 cannot be drawn here: .*pygame.*gymnasium\[classic-control\]"):
        write_video(tmp_path / "one.mp4", "Pendulum-v1", {"learner": Always(0.0)})


class Blind(gymnasium.Env):
    """An environment of one's own that nobody has taught to draw."""

    observation_space, action_space = Box(-1, 1, (2,), np.float32), Box(-1, 1, (1,), np.float32)

    def __init__(self):
        pass


@pytest.mark.filterwarnings("error")
def test_an_environment_that_does_not_draw_is_told_what_it_has_to_take(monkeypatch):
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {})
    gymnasium.register("Blind-v0", Blind)
    with pytest.raises(ValueError, match=r'Blind-v0 cannot be drawn here: .*Its class has to take render_mode="rgb_array"'):
        _drawing("Blind-v0")
