"""From a cloned actor to soft actor-critic: the same actions at first, critics first, and an exact resume."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import build_strategy, refused, write_pendulum
from learners import demonstrate, descending, transitions
from torch.distributions import Normal, kl_divergence

from lightning_bc.cli import main
from lightning_bc.networks import ResidualMLP
from lightning_bc.strategies import MSE, SAC, Diffusion, Gaussian
from lightning_bc.strategies.contract import Needs
from lightning_bc.strategies.online.handover import divergence
from lightning_bc.strategies.online.soft_actor_critic import SquashedGaussian

OBSERVATIONS = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))


def handed_over(clone, **options):
    """A small SAC that begins as ``clone``."""
    strategy = build_strategy(SAC, **options)
    strategy.load_state_dict(strategy.weights_from(clone))
    strategy.take_over()
    return strategy


def clone_of(cls=MSE, **options):
    clone = build_strategy(cls, **options)
    clone.border.fit(5 + 3 * OBSERVATIONS)
    return clone


@pytest.mark.parametrize("cls", [MSE, Gaussian])
@pytest.mark.parametrize("options", [{}, {"network": ResidualMLP}], ids=["MLP", "ResidualMLP"])
def test_the_actor_acts_as_its_clone_with_a_small_scale_and_a_low_temperature(cls, options):
    clone = clone_of(cls, **options)
    strategy = handed_over(clone, **options)
    torch.testing.assert_close(strategy(OBSERVATIONS), clone(OBSERVATIONS))
    policy = strategy.agent.policy(strategy.border.observe(OBSERVATIONS))
    torch.testing.assert_close(policy.log_scale.exp(), torch.full((50, 2), 0.1))
    assert strategy.agent.log_temperature.exp().item() == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("cls", "options"), [(Diffusion, {}), (MSE, {"squash": False}), (MSE, {"horizon": 2}), (Gaussian, {"history": 2})]
)
def test_what_answers_otherwise_is_no_clone_to_begin_from(cls, options):
    assert build_strategy(SAC).weights_from(build_strategy(cls, **options)) is None


def test_the_critics_learn_alone_at_first_and_the_temperature_stays():
    strategy = handed_over(clone_of(), critic_first=3, actor_every=1, batch_size=6)
    descend, agent = descending(strategy), strategy.agent
    actor = [parameter.clone() for parameter in agent.network.parameters()]
    for number in range(4):
        critics = agent.critics.weights[0].clone()
        slow = agent.target_critics.weights[0].clone()
        strategy.prepare(number)
        strategy.update(transitions(), number, descend)
        assert not torch.equal(agent.critics.weights[0], critics)
        assert not torch.equal(agent.target_critics.weights[0], slow)
        moved = [not torch.equal(*pair) for pair in zip(agent.network.parameters(), actor, strict=True)]
        assert any(moved) == (number == 3)
        assert agent.log_temperature.exp().item() == pytest.approx(0.01)


def test_what_holds_the_actor_falls_by_half_and_stays():
    strategy = handed_over(clone_of(), critic_first=3, anchor=10.0)
    weights = []
    for number in (0, 3, 13, 23, 10_000):
        strategy.prepare(number)
        weights.append(strategy.clone.weight.item())
    assert weights == pytest.approx([0.03, 0.03, 0.015, 0.0075, 0.004])


def test_the_divergence_is_that_of_normals():
    outputs = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, second = map(SquashedGaussian, outputs)
    normals = [Normal(one.mean, one.log_scale.exp()) for one in (first, second)]
    torch.testing.assert_close(divergence(first, second), kl_divergence(*normals).sum(-1))


def test_an_anchored_actor_goes_back_to_its_clone():
    strategy = handed_over(clone_of(), actor_every=1, critic_first=0, anchor=1e9)
    observations = transitions().observations
    with torch.no_grad():
        strategy.agent.network.layers[-1].bias[0] += 1
    strategy.prepare(0)
    strategy.clone.weight.fill_(1e3)
    loss, _ = strategy.agent.actor_loss(observations)
    loss.backward()
    assert strategy.agent.network.layers[-1].bias.grad[0] > 1      # down the gradient is back


def test_without_a_clone_nothing_changes():
    strategy = build_strategy(SAC, critic_first=3)
    strategy.prepare(0)
    assert strategy.agent.actor_learns
    assert strategy.agent.anchor is None


def test_demonstrations_are_a_share_of_each_batch():
    strategy = build_strategy(SAC, demonstrated=0.5)
    assert strategy.needs is Needs.TRANSITIONS
    demonstrate(strategy, transitions(seed=1))
    seen = []
    strategy.agent.critic_loss = lambda batch, reward: (seen.append(batch), (torch.zeros(()), {}))[1]
    strategy.agent.improve = lambda batch, number, descend: {}
    strategy.update(batch := transitions(), 0, lambda part, loss: None)
    assert torch.equal(seen[0].rewards[3:], batch.rewards[3:])
    assert torch.isin(seen[0].rewards[:3], transitions(seed=1).rewards).all()


# The command line

SMALL = "--rollouts.eval_freq 8 --rollouts.episodes 1 --trainer.enable_progress_bar false --model.network.hidden_sizes"
ONLINE = (
    "--env InvertedPendulum-v5 --model.num_envs 2 --model.learning_starts 8 --model.batch_size 8 "
    "--model.replay_capacity 100 --model.critic_first 5 --rollouts.eval_freq 8 --rollouts.episodes 1 "
    "--trainer.enable_progress_bar false "
    "--model.total_environment_steps"
)


def fit(run, flags, *more):
    main(["fit", "--run", run, *flags.split(), *more])
    return torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    """A folder with demonstrations of a pendulum, and MSE's clone of them."""
    folder = tmp_path_factory.mktemp("clones")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_pendulum("pendulum.pt")
        fit("clone", f"--model MSE --data.path pendulum.pt --trainer.max_steps 16 {SMALL} [8,9]")
        Path("checkpoints/clone/last.ckpt").rename("clone.ckpt")
    return folder


@pytest.fixture
def clones(cloned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clone.ckpt", "pendulum.pt"):
        shutil.copy(cloned / name, name)


def noise_of(replay, weights):
    """What was added to the clone's means before the tanh, of the rows of a replay, in units of the scale."""
    hidden = (replay[:, :4] - weights["border.mean"]) / weights["border.scale"]
    for layer in (0, 2, 4):
        hidden = hidden @ weights[f"network.layers.{layer}.weight"].T + weights[f"network.layers.{layer}.bias"]
        hidden = hidden.relu() if layer < 4 else hidden
    return (replay[:, 4:5].arctanh() - hidden) / 0.1


def test_a_run_begins_as_its_clone_and_is_resumed_exactly_without_it(clones, capsys):
    flags = f"--model SAC --data.path null --model.init_from clone.ckpt {ONLINE}"
    through = fit("through", f"{flags} 60")
    assert "a cloned actor, with the scales of observations and actions, from clone.ckpt" in capsys.readouterr().out
    clone = torch.load("clone.ckpt", weights_only=True)
    network = yaml.safe_load(Path("lightning_logs/through/config.yaml").read_text())["model"]["init_args"]["network"]
    assert network["init_args"]["hidden_sizes"] == [8, 9]
    assert torch.equal(through["state_dict"]["border.mean"], clone["state_dict"]["border.mean"])
    for name, value in through["clone"].items():
        rows = clone["state_dict"][f"network.{name}"]
        assert torch.equal(value[: len(rows)], rows)
    noise = noise_of(through["interaction"]["replay"]["rows"][:12], clone["state_dict"])
    assert 0.3 < noise.square().mean().sqrt() < 2
    mine = fit("mine", f"{flags} 30")
    learnt = mine["state_dict"]["agent.network.layers.0.weight"]
    assert not torch.equal(learnt, clone["state_dict"]["network.layers.0.weight"])
    Path("clone.ckpt").unlink()
    mine = fit("mine", f"{flags} 60")
    for name, value in through["state_dict"].items():
        assert torch.equal(value, mine["state_dict"][name]), name
    assert torch.equal(through["random_state"]["cpu"], mine["random_state"]["cpu"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--model TD3 --model.init_from clone.ckpt", "is a checkpoint of MSE, and this run is of TD3. A clone that"),
        ("--model SAC --model.init_from clone.ckpt --model.network.hidden_sizes [7]", "(8, 4), and this SAC has it (7, 4)"),
        ("--model SAC --model.init_from gone.ckpt", "--model.init_from gone.ckpt: no such checkpoint, and no last.ckpt"),
        ("--model SAC --model.demonstrated 0.5", "--data.path null: SAC learns from demonstrations"),
    ],
)
def test_what_cannot_be_begun_from_is_refused(flags, words, clones, capsys):
    flags = f"{flags} --data.path null --run mine {ONLINE} 60".replace("--model.critic_first 5", "")
    assert words in refused(capsys, "fit", *flags.split())


def test_a_clone_that_plays_its_bounds_is_refused_with_the_reason(clones, capsys):
    content = torch.load("clone.ckpt", weights_only=True)
    content["state_dict"]["squashing.range"].fill_(0.9)
    torch.save(content, "on_bounds.ckpt")
    flags = f"--model SAC --model.init_from on_bounds.ckpt --data.path null --run mine {ONLINE} 60"
    error = refused(capsys, "fit", *flags.split())
    assert "actions lie on their bounds, so that it acts by tanh(u) / 0.9, and an actor of SAC by tanh(u)" in error


def test_demonstrations_without_rewards_are_refused(clones, capsys):
    flags = f"--model SAC --model.init_from clone.ckpt --model.demonstrated 0.5 --run mine {ONLINE} 60"
    assert "have no rewards" in refused(capsys, "fit", "--data.path", "pendulum.pt", *flags.split())
