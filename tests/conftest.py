"""What several test files share: small demonstration files, actors and strategies, and small runs of the command line."""

import functools
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")                       # a worker per core, and one thread per worker

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_bc.cli import main
from lightning_bc.files import write
from lightning_bc.networks import MLP
from lightning_bc.runs import score
from lightning_bc.strategies import Strategy, strategies
from lightning_bc.texts import CHECKSUM

REPOSITORY = Path(__file__).parents[1]

torch.set_num_threads(1)
USUAL_STEPS = {name: cls.default_steps for name, cls in strategies().items()}
for _cls in (Strategy, *strategies().values()):
    _cls.default_steps = 11                                         # where a test's runs are of no length of their own

SMALL = "--model.network MLP --model.network.hidden_sizes [16,16]"
OFFLINE_FLAGS = "--rollouts.eval_freq 5 --rollouts.episodes 2 --data.batch_size 10"  # 11 batches per epoch
INTERACTIVE_FLAGS = "--model.num_envs 2 --model.batch_size 16 --rollouts.eval_freq 10 --rollouts.episodes 2"
BUDGET = "--trainer.max_steps 4 --rollouts.eval_freq 2 --rollouts.episodes 2 --data.batch_size 16"
INTERACTIVE_BUDGET = (
    "--model.total_environment_steps 40 --model.num_envs 2 --model.learning_starts 8 --model.batch_size 8 "
    "--rollouts.eval_freq 10 --rollouts.episodes 2"
)


class Payload:
    """A pickled object that makes a folder when it is loaded: evidence that a file was run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_pairs(path, lengths=(5,) * 12, observation_dim=17, action_dim=6, **changes):
    """Write demonstrations whose observations begin with (episode, step); HalfCheetah's dimensions unless told otherwise.

    ``changes`` replace or add keys; a key set to None is left out.
    """
    pairs, generator = sum(lengths), torch.Generator().manual_seed(0)
    observations = torch.randn(pairs, observation_dim, generator=generator)
    rows = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    observations[:, :2] = torch.tensor(rows, dtype=torch.float32)
    content = {
        "observations": observations,
        "actions": 2 * torch.rand(pairs, action_dim, generator=generator) - 1,
        "mean_reward": 9000.0,
        "std_reward": 100.0,
        "episode_lengths": torch.tensor(lengths),
        "random_returns": torch.full((100,), -300.0),
        "expert_returns": torch.full((100,), 10_000.0),
    } | changes
    write(path, {key: value for key, value in content.items() if value is not None})
    return str(path)


def write_pendulum(path):
    """Demonstrations of InvertedPendulum-v5: twelve episodes of ten steps, within its bounds of -3 and 3."""
    return write_pairs(
        path,
        lengths=(10,) * 12,
        observation_dim=4,
        action_dim=1,
        mean_reward=1000.0,
        random_returns=torch.full((100,), 5.0),
        expert_returns=torch.full((100,), 1000.0),
        metadata={"environment_id": "InvertedPendulum-v5"},
    )


def actor_state(observation_dim, action_dim, algorithm="sac", scale=1.0, bias=0.0, hidden_size=16, seed=0):
    """Random state dict of a CleanRL actor, with CleanRL's buffers of shape (1, action_dim)."""
    generator = torch.Generator().manual_seed(seed)
    heads = ("fc_mean", "fc_logstd") if algorithm == "sac" else ("fc_mu",)
    sizes = {"fc1": (hidden_size, observation_dim), "fc2": (hidden_size, hidden_size)}
    sizes |= dict.fromkeys(heads, (action_dim, hidden_size))
    state = {}
    for layer, (size_out, size_in) in sizes.items():
        state[f"{layer}.weight"] = torch.randn(size_out, size_in, generator=generator) / size_in**0.5
        state[f"{layer}.bias"] = 0.1 * torch.randn(size_out, generator=generator)
    state["action_scale"] = torch.as_tensor(scale, dtype=torch.float32).expand(1, action_dim).clone()
    state["action_bias"] = torch.as_tensor(bias, dtype=torch.float32).expand(1, action_dim).clone()
    return state


def build_strategy(
    cls: type[Strategy], observation_dim=3, action_low=(-2.0, 0.0), action_high=(1.0, 3.0), hidden_sizes=(32, 32), **options
) -> Strategy:
    """A small strategy; the bounds are asymmetric and not those of scaled actions."""
    torch.manual_seed(0)
    if "network" in inspect.signature(cls).parameters:
        options = {"network": functools.partial(MLP, hidden_sizes=hidden_sizes), **options}
    elif "width" in inspect.signature(cls).parameters:
        options = {"width": 16, "layers": 1, **options}
    elif "pairs" in inspect.signature(cls).parameters:
        options = {"pairs": 256, **options}
    return cls(observation_dim=observation_dim, action_low=list(action_low), action_high=list(action_high), **options)


def is_interactive(strategy):
    """Whether the strategy of this class name acts in the environment while it learns."""
    return strategies()[strategy].learns_by_acting


def flags_of(strategy, data, epochs, environment_steps):
    """Flags of ``fit``: a small network; so many epochs, or environment steps with a replay that forgets on the way."""
    length = f"{OFFLINE_FLAGS} --trainer.max_epochs {epochs}"
    if is_interactive(strategy):
        starts, capacity = environment_steps // 6, environment_steps // 2
        length = f"{INTERACTIVE_FLAGS} --model.total_environment_steps {environment_steps}"
        length += f" --model.learning_starts {starts} --model.replay_capacity {capacity}"
    given = inspect.signature(strategies()[strategy]).parameters
    sizes = "--model.width 16 --model.layers 1" if "width" in given else ""
    small = (SMALL if "network" in given else sizes).split()
    return ["--model", strategy, *small, "--data.path", data, *length.split()]


def import_from(*folders):
    """The environment variable by which a process imports from ``folders`` before all others."""
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])}


def fit(data, strategy="MSE", flags=BUDGET):
    """Train in the working directory; the name of the run."""
    main(["fit", "--model", strategy, "--data.path", data, *flags.split()])
    return max(Path("checkpoints").iterdir(), key=os.path.getmtime).name


def refused(capsys, *arguments):
    """Run a command that must be refused, and return what it printed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


def json_to_edit(path):
    """What a JSON file of the package holds, without its checksum: so that it may be written with something else in it."""
    return {key: value for key, value in json.loads(Path(path).read_text()).items() if key != CHECKSUM}


def curve(run, tag="rollout/return_mean"):
    """Step and value of each point that a run in the working directory logged."""
    events = EventAccumulator(f"lightning_logs/{run}", size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def last_checkpoint(run):
    """What ``last.ckpt`` of a run in the working directory holds."""
    return torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True)


def assert_equal_weights(first, second):
    """That two checkpoints hold the same weights, bit by bit."""
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name


def constant_outputs(outputs):
    """A network factory: the same ``outputs`` whatever is observed."""

    def factory(input_size, output_size):
        network = torch.nn.Linear(input_size, output_size)
        torch.nn.init.zeros_(network.weight)
        with torch.no_grad():
            network.bias.copy_(torch.as_tensor(outputs))
        return network

    return factory


def train(strategy, batch_of, steps=200, learning_rate=3e-3):
    """Minimise ``strategy.loss`` with Adam; the losses along the way."""
    optimizer, losses = torch.optim.Adam(strategy.parameters(), lr=learning_rate), []
    for _ in range(steps):
        loss, _ = strategy.loss(*batch_of())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if strategy.answers_by:
        strategy.condition(*(column[: strategy.answers_by] for column in batch_of()))
    return losses


def linear_problem(pairs=256):
    """Observations, and actions in [-1, 1] that are linear in them."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(pairs, 3, generator=generator)
    return observations, (observations @ torch.tensor([[0.3, -0.1], [0.0, 0.2], [-0.2, 0.1]])).clamp(-1, 1)


@functools.cache
def can_draw() -> bool:
    """Whether MuJoCo's pictures can be drawn through EGL here."""
    trial = [sys.executable, "-c", "from mujoco.egl import GLContext; GLContext(64, 64)"]
    return subprocess.run(trial, capture_output=True).returncode == 0


@pytest.fixture(autouse=True, scope="session")
def _short_scores():
    """A run ends with three episodes of the test bank, and two calls to measure the latency by: few tests are of these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "TEST_EPISODES", 3)
        patch.setattr(score, "LATENCY_CALLS", 2)
        yield


@pytest.fixture
def payload(tmp_path):
    """A pickled object, and the folder that exists once it has run."""
    folder = tmp_path / "the-payload-ran"
    return Payload(folder), folder


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working directory with demonstrations of InvertedPendulum-v5."""
    monkeypatch.chdir(tmp_path)
    return write_pendulum(tmp_path / "pendulum.pt")
