"""Strategies that act while they learn: losses by hand, the loop against gymnasium, signs and known answers of rewards."""

import copy
import functools
import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from conftest import INTERACTIVE_BUDGET, build_strategy, refused, write_pairs, write_pendulum
from lightning.pytorch import Callback, Trainer
from scipy import stats

from lightning_bc.callbacks import Rollouts
from lightning_bc.cli import main
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.environments import make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.errors import InputError
from lightning_bc.strategies import AIRL, GAIL, SAC
from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online import adversarial, interactive

ADVERSARIAL = pytest.mark.parametrize("cls", [GAIL, AIRL], ids=lambda cls: cls.__name__)
EVERY = pytest.mark.parametrize("cls", [SAC, GAIL, AIRL], ids=lambda cls: cls.__name__)


def transitions(batch=6, observation_dim=3, action_dim=2, terminated=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Transitions(
        observations=torch.randn(batch, observation_dim, generator=generator),
        actions=2 * torch.rand(batch, action_dim, generator=generator) - 1,
        rewards=torch.randn(batch, generator=generator),
        next_observations=torch.randn(batch, observation_dim, generator=generator),
        terminated=torch.zeros(batch) if terminated is None else torch.as_tensor(terminated, dtype=torch.float32),
    )


def by_hand(strategy):
    """Optimizers as ``_update`` takes them, without a Trainer; sets ``manual_backward`` and ``optimizers``."""
    optimizers = {
        name: SimpleNamespace(optimizer=strategy.optimizer(parameters))
        for name, parameters in strategy.parameter_groups().items()
    }
    strategy.manual_backward = lambda loss: loss.backward()
    strategy.optimizers = lambda: list(optimizers.values())
    return functools.partial(strategy._update, optimizers=optimizers, through_lightning=False)


def tiny(cls=SAC, action_low=(-3.0,), action_high=(3.0,), observation_dim=4, **options):
    """A strategy for InvertedPendulum-v5 unless told otherwise, with a budget of a second."""
    budget = {"total_environment_steps": 40, "num_envs": 2, "learning_starts": 8, "batch_size": 8, "updates_per_step": 1}
    return build_strategy(cls, observation_dim, action_low, action_high, (8,), **budget | options)


def train(strategy, environment_id="InvertedPendulum-v5", path=None, callbacks=(), ckpt_path=None):
    """Lightning's loop and no more: no curve, no checkpoints."""
    trainer = Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                             # Lightning's, of workers and of what it was not given
        data = Demonstrations(path=path, environment_id=environment_id)
        trainer.fit(strategy, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.fixture
def pendulum_data(tmp_path, monkeypatch):
    """A working directory with demonstrations of InvertedPendulum-v5, within its bounds of -3 and 3."""
    monkeypatch.chdir(tmp_path)
    return write_pendulum(tmp_path / "pendulum.pt")


# The losses


def test_a_terminated_transition_does_not_bootstrap_and_a_truncated_one_does():
    strategy = build_strategy(SAC, discount=0.9)
    torch.nn.init.normal_(strategy.target_critics.weights[-1])      # the slow critics are others than the fast ones
    strategy.log_temperature.data.fill_(-0.7)
    batch = transitions(2, terminated=[1, 0])
    torch.manual_seed(5)
    loss, metrics = strategy.critic_loss(batch)

    torch.manual_seed(5)
    next_actions, log_probability = strategy.policy(batch.next_observations).sample()
    slow = strategy.target_critics(batch.next_observations, next_actions)
    future = min(slow[0, 1].item(), slow[1, 1].item()) - np.exp(-0.7) * log_probability[1].item()
    targets = [batch.rewards[0].item(), batch.rewards[1].item() + 0.9 * future]
    values = strategy.critics(batch.observations, batch.actions).tolist()
    expected = sum(np.mean(np.square(np.subtract(member, targets))) for member in values)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["reward"].item() == pytest.approx(batch.rewards.mean().item())
    assert metrics["q_value"].item() == pytest.approx(np.mean(values))


@ADVERSARIAL
def test_a_learnt_reward_goes_on_after_termination(cls):
    strategy = build_strategy(cls, discount=0.9)
    batch = transitions(1, terminated=[1])
    loss, _ = strategy.critic_loss(batch)
    target = strategy.rewards(batch) + 0.9 * strategy.score(strategy.absorbed(1)) / (1 - 0.9)
    expected = (strategy.critics(batch.observations, batch.actions) - target).square().sum()
    torch.testing.assert_close(loss, expected)


@EVERY
def test_the_critics_loss_moves_only_the_critics(cls):
    strategy = build_strategy(cls)
    strategy.critic_loss(transitions(terminated=[1, 0, 0, 1, 0, 0]))[0].backward()
    moved = {name for name, parameter in strategy.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert moved
    assert {name.partition(".")[0] for name in moved} == {"critics"}


def test_the_actors_loss_is_the_price_of_entropy_less_the_least_value():
    strategy, batch = build_strategy(SAC), transitions()
    strategy.log_temperature.data.fill_(-0.7)
    torch.manual_seed(5)
    loss, metrics = strategy.actor_loss(batch)
    torch.manual_seed(5)
    actions, log_probability = strategy.policy(batch.observations).sample()
    first, second = strategy.critics(batch.observations, actions)
    torch.testing.assert_close(loss, (np.exp(-0.7) * log_probability - torch.minimum(first, second)).mean())
    torch.testing.assert_close(metrics["entropy"], -log_probability.mean())


def test_the_actors_step_raises_value():
    strategy, batch = build_strategy(SAC, actor_every=1), transitions(64)
    strategy.log_temperature.data.fill_(-10.0)

    def value():
        with torch.no_grad():
            actions = strategy.policy(batch.observations).mean.tanh()
            return strategy.critics(batch.observations, actions).amin(0).mean()

    before, optimizer = value(), torch.optim.Adam(strategy.network.parameters(), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        strategy.actor_loss(batch)[0].backward()
        optimizer.step()
    assert value() > before


@pytest.mark.parametrize(("entropy", "direction"), [(-2.5, 1), (-1.5, -1), (3.0, -1), (-50.0, 1)])
def test_the_temperature_rises_while_the_entropy_is_under_minus_action_dim(entropy, direction):
    strategy = build_strategy(SAC)                                  # two actions
    optimizer, before = torch.optim.SGD([strategy.log_temperature], lr=0.1), strategy.log_temperature.item()
    strategy.temperature_loss(torch.tensor(entropy)).backward()
    optimizer.step()
    assert (strategy.log_temperature.item() - before) * direction > 0


@EVERY
def test_actor_and_temperature_leave_no_trace_in_the_critics(cls):
    """An update with them, and one without: critics, their gradients and the slow critics are the same."""
    batch, strategies = transitions(), [build_strategy(cls, actor_every=2, batch_size=6) for _ in range(2)]
    for strategy in strategies:
        strategy.expert = transitions(seed=1)
        torch.nn.init.normal_(strategy.target_critics.weights[-1], generator=torch.Generator().manual_seed(0))
    strategies[1].optimizer_steps += 1                              # the actor's turn is at even ones
    before = copy.deepcopy(strategies[0])
    for strategy in strategies:
        update = by_hand(strategy)
        rewards = strategy.update_rewards
        strategy.update_rewards = lambda batch, number, rewards=rewards: rewards(batch, 0)
        torch.manual_seed(5)
        update(batch)
    with_actor, without = strategies
    actors = [torch.nn.utils.parameters_to_vector(each.network.parameters()) for each in (with_actor, without, before)]
    assert not torch.equal(actors[0], actors[2])
    assert torch.equal(actors[1], actors[2])
    assert with_actor.log_temperature != before.log_temperature
    assert without.log_temperature == before.log_temperature
    for name in ("critics", "target_critics"):
        for one, other in zip(getattr(with_actor, name).parameters(), getattr(without, name).parameters(), strict=True):
            assert torch.equal(one, other)
    for one, other in zip(with_actor.critics.parameters(), without.critics.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
        assert one.requires_grad                                    # again, for the next update


@pytest.mark.parametrize("rate", [0.005, 0.3, 1.0])
def test_the_slow_critics_move_by_exactly_the_target_rate(rate):
    strategy = build_strategy(SAC, target_rate=rate)
    torch.nn.init.normal_(strategy.target_critics.weights[0])
    before = copy.deepcopy(strategy.target_critics)
    by_hand(strategy)(transitions())
    groups = (before.parameters(), strategy.critics.parameters(), strategy.target_critics.parameters())
    for old, critic, new in zip(*groups, strict=True):
        torch.testing.assert_close(new, (1 - rate) * old + rate * critic)
        assert not new.requires_grad


@EVERY
def test_what_acts_is_the_average_of_the_actors_weights(cls):
    """Of update n with a weight that grows as (n + 1) (n + 2) ... (n + 9), a polynomial of the ninth degree."""
    strategy = build_strategy(cls, batch_size=6, actor_every=1, optimizer=functools.partial(torch.optim.Adam, lr=0.05))
    strategy.expert = transitions(seed=1)
    update, weights = by_hand(strategy), []
    for _ in range(30):
        update(transitions())
        weights.append(torch.nn.utils.parameters_to_vector(strategy.network.parameters()))
    shares = np.array([math.prod(range(n + 1, n + 10)) for n in range(30)], dtype=float)
    average = sum(share * each for share, each in zip((shares / shares.sum()).tolist(), weights, strict=True))
    torch.testing.assert_close(torch.nn.utils.parameters_to_vector(strategy.averaged.parameters()), average)
    observations = transitions().observations
    outputs = strategy.averaged(observations)
    assert not torch.allclose(outputs, strategy.network(observations), atol=0.01)
    torch.testing.assert_close(strategy.act(observations, deterministic=True), outputs[:, :2].tanh())


def test_every_optimizer_has_its_part_and_none_is_left_out():
    for cls in (SAC, GAIL, AIRL):
        strategy = build_strategy(cls)
        parts = [parameter for group in strategy.parameter_groups().values() for parameter in group]
        trained = [parameter for parameter in strategy.parameters() if parameter.requires_grad]
        assert len(parts) == len(trained)
        assert {id(parameter) for parameter in parts} == {id(parameter) for parameter in trained}


# The loop


class Watched:
    """Sub-environments that note the seed and the actions that they were given."""

    def __init__(self, environments):
        self._environments, self.seed, self.actions = environments, None, []

    def __getattr__(self, name):
        return getattr(self._environments, name)

    def reset(self, seed):
        self.seed = seed
        return self._environments.reset(seed=seed)

    def step(self, actions):
        self.actions.append(actions.copy())
        return self._environments.step(actions)


@pytest.fixture
def watched(monkeypatch):
    made = []

    def watch(environment_id, num_envs):
        made.append(Watched(make(environment_id, num_envs)))
        return made[-1]

    monkeypatch.setattr(interactive, "make", watch)
    return made


def replayed(environment_id, seed, actions):
    """What gymnasium's own environment answers: rows of observation, reward, next observation, terminated, truncated."""
    environment = gymnasium.make(environment_id)
    observation, _ = environment.reset(seed=seed)
    rows = []
    for action in actions:
        following, reward, terminated, truncated, _ = environment.step(action)
        rows.append((observation, reward, following, terminated, truncated))
        observation = environment.reset()[0] if terminated or truncated else following
    environment.close()
    return [np.array(column, dtype=np.float32) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("environment_id", "observation_dim", "low", "high", "ends"),
    [
        ("InvertedPendulum-v5", 4, -1.0, 3.0, "terminated"),        # narrower than the environment's, and asymmetric
        ("Pendulum-v1", 3, -2.0, 2.0, "truncated"),
    ],
)
def test_the_replay_holds_what_gymnasium_answers(environment_id, observation_dim, low, high, ends, watched):
    """Over ends of episodes too: the next observation is the episode's last, never the next episode's first."""
    strategy = tiny(
        SAC, (low,), (high,), observation_dim, total_environment_steps=440, learning_starts=400, num_envs=2
    )
    train(strategy, environment_id)
    rows = strategy.replay._rows[: len(strategy.replay)].reshape(220, 2, -1)  # (steps, num_envs, columns)
    given = np.array(watched[0].actions)                            # (steps, num_envs, 1)
    for index in range(2):
        columns = rows[:, index].split([observation_dim, 1, 1, observation_dim, 1], dim=-1)
        observations, actions, rewards, following, terminated = (column.numpy() for column in columns)
        expected = replayed(environment_id, watched[0].seed + index, given[:, index])
        np.testing.assert_array_equal(observations, expected[0])
        np.testing.assert_array_equal(rewards[:, 0], expected[1])
        np.testing.assert_array_equal(following, expected[2])
        np.testing.assert_array_equal(terminated[:, 0], expected[3])
        np.testing.assert_allclose(given[:, index], low + (high - low) * (actions + 1) / 2, rtol=1e-6, atol=1e-6)
        assert np.abs(actions).max() <= 1
        ended = np.flatnonzero(expected[3] if ends == "terminated" else expected[4])[:-1]
        assert len(ended) or ends == "truncated"
        if ends == "truncated":
            ended = np.array([199])
            assert expected[4][199]
            assert not terminated.any()
        assert (following[ended] != observations[ended + 1]).any(-1).all()


def test_actions_are_random_until_learning_starts_and_the_policys_from_then_on(watched):
    strategy = tiny(total_environment_steps=420, learning_starts=400)

    def policy(observations):
        actions = 0.25 + 0 * strategy.network(observations)[:, :1]
        return SimpleNamespace(sample=lambda: (actions, actions[:, 0]))

    strategy.policy = policy
    train(strategy)
    given = np.array(watched[0].actions)[..., 0]                    # (steps, num_envs)
    assert len(given) == 210
    assert (given[200:] == 0.75).all()
    assert stats.kstest(given[:200].ravel(), stats.uniform(-3, 6).cdf).pvalue > 0.01


class Steps(Callback):
    """Notes the counters after each training_step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, *_):
        self.seen.append((trainer.global_step, *module.steps_taken.values()))


@pytest.mark.parametrize(
    ("num_envs", "updates_per_step", "learning_starts", "total", "expected"),
    [
        (2, 0.5, 8, 14, [(1, 1, 10), (2, 2, 12), (3, 3, 14)]),
        (2, 1, 8, 14, [(1, 2, 10), (2, 4, 12), (3, 6, 14)]),
        (4, 0.5, 8, 20, [(1, 2, 12), (2, 4, 16), (3, 6, 20)]),
        (4, 1, 8, 20, [(1, 4, 12), (2, 8, 16), (3, 12, 20)]),
        (3, 0.5, 9, 20, [(1, 1, 12), (2, 3, 15), (3, 4, 18), (4, 6, 21)]),  # one and a half a step; the end is crossed
        (4, 0.5, 9, 20, [(1, 3, 16), (2, 5, 20)]),                  # random play fills up to 12, three more than asked
        (10, 0.1, 8, 40, [(1, 1, 20), (2, 2, 30), (3, 3, 40)]),
    ],
    ids=str,
)
def test_counters_are_as_computed_by_hand(num_envs, updates_per_step, learning_starts, total, expected):
    """After each training_step: Lightning's step, updates made, environment steps."""
    steps = Steps()
    strategy = tiny(
        num_envs=num_envs,
        updates_per_step=updates_per_step,
        learning_starts=learning_starts,
        total_environment_steps=total,
    )
    train(strategy, callbacks=[steps])
    assert steps.seen == expected
    assert len(strategy.replay) == expected[-1][-1]


def test_metrics_of_rare_updates_are_logged_too(pendulum_data, monkeypatch):
    """Here each value is logged at odd training_steps, and the actor's and discriminator's turns are at even ones."""
    monkeypatch.setattr(GAIL, "log_every", 7)
    trainer = train(tiny(GAIL, updates_per_step=0.5, actor_every=2, discriminator_every=4), path=pendulum_data)
    logged = {name.removeprefix("train/") for name in trainer.callback_metrics}
    assert {"critic_loss", "actor_loss", "entropy", "temperature", "discriminator_loss", "reward_correlation"} <= logged


def test_observations_are_standardised_by_the_demonstrations(pendulum_data):
    strategy = tiny(GAIL)
    train(strategy, path=pendulum_data)
    content = torch.load(pendulum_data, weights_only=True)
    observations = content["observations"][:110]                    # the twelfth episode is held out
    torch.testing.assert_close(strategy.expert.actions, content["actions"][:110] / 3)
    assert torch.equal(strategy.expert.observations, observations)
    assert strategy.expert.terminated.tolist() == [float(row % 10 == 9) for row in range(110)]
    torch.testing.assert_close(strategy.border.mean, observations.mean(0))
    torch.testing.assert_close(strategy.border.scale, observations.std(0, correction=0))
    for transitions in (strategy.expert, strategy.replay):
        torch.manual_seed(0)
        raw = transitions.sample(strategy.batch_size)
        torch.manual_seed(0)
        batch = strategy.sample(transitions, strategy.batch_size)
        torch.testing.assert_close(batch.observations, strategy.border.observe(raw.observations))
        torch.testing.assert_close(batch.next_observations, strategy.border.observe(raw.next_observations))
        assert torch.equal(batch.actions, raw.actions)


def test_an_expert_that_holds_still_does_not_blow_up_the_learners_observations(pendulum_data):
    content = torch.load(pendulum_data, weights_only=True)
    content["observations"][:, 1] = torch.linspace(0.02, 0.0201, 120)
    torch.save(content, pendulum_data)
    strategy = tiny(AIRL, total_environment_steps=240, learning_starts=200)
    train(strategy, path=pendulum_data)
    angles = strategy.replay.observations[:200, 1]
    assert strategy.border.scale[1].item() == pytest.approx(angles.std(correction=0).item() / 10)
    assert strategy.border.observe(strategy.replay.observations[:200])[:, 1].abs().max() < 100


# Whole runs by the command line


@pytest.mark.parametrize(("num_envs", "updates_per_step", "steps", "updates"), [(2, 0.5, 16, 16), (4, 1, 8, 32)])
def test_a_finished_run_counts_right_and_resuming_it_does_no_further_step(
    num_envs, updates_per_step, steps, updates, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    flags = f"{INTERACTIVE_BUDGET} --model.num_envs {num_envs} --model.updates_per_step {updates_per_step}".split()
    command = ["fit", "--model", "SAC", "--env", "InvertedPendulum-v5", *flags]  # asks for no demonstrations
    main(command)
    printed = capsys.readouterr().out
    path = next(Path("checkpoints").glob("*/last.ckpt"))
    before = torch.load(path, weights_only=True)
    assert before["global_step"] == steps
    assert before["state_dict"]["optimizer_steps"] == updates
    assert before["state_dict"]["environment_steps"] == 40

    # no expert for this environment is known: what needs one is null, and the text says so
    results = next(Path("lightning_logs").glob("*/results.json"))
    content = json.loads(results.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["optimizer_steps"] == updates
    assert content["environment_steps"] == 40
    for key in ("normalized", "sampled_normalized", "failed_episodes"):
        assert content[key] is None
    assert content["references"]["expert_return"] is None
    assert 0 < content["references"]["random_return"] < 50
    assert content["score"] == pytest.approx(np.mean(content["returns"]))
    assert "no expert is shipped" in printed
    assert "nan" not in printed

    first = results.read_text()
    main([*command, "--ckpt_path", str(path)])
    after = torch.load(path, weights_only=True)
    assert after["global_step"] == steps
    assert after["state_dict"].keys() == before["state_dict"].keys()
    for name, value in before["state_dict"].items():
        assert torch.equal(value, after["state_dict"][name]), name
    assert torch.equal(after["interaction"]["replay"]["rows"], before["interaction"]["replay"]["rows"])
    assert json.loads(results.read_text())["returns"] == json.loads(first)["returns"]


# What the discriminators learn


def learn(strategy, expert, learner, steps=150, lr=1e-3):
    """Train the discriminator alone, always on these batches; without penalty none is computed, which halves the time."""
    with pytest.MonkeyPatch.context() as patch:
        if strategy.penalty == 0:
            patch.setattr(adversarial, "gradient_penalty", lambda *_: torch.zeros(()))
        return _learn(strategy, expert, learner, steps, lr)


def _learn(strategy, expert, learner, steps, lr):
    optimizer = torch.optim.Adam(strategy.discriminator_parameters(), lr=lr)
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        strategy.discriminator_loss(learner, expert)[0].backward()
        optimizer.step()
    return strategy


def at_rest(actions, terminated=0.0):
    """Transitions with these 1-D ``actions`` (batch,), where every observation is zero."""
    actions = torch.as_tensor(np.asarray(actions), dtype=torch.float32)
    zeros = torch.zeros(len(actions))
    observations = zeros.unsqueeze(-1)
    return Transitions(observations, actions.unsqueeze(-1), zeros, observations, zeros + torch.as_tensor(terminated))


def one_dimensional(cls, **options):
    return build_strategy(cls, observation_dim=1, action_low=(-1.0,), action_high=(1.0,), hidden_sizes=(8,), **options)


@ADVERSARIAL
def test_the_experts_actions_earn_more_than_the_learners(cls):
    generator = torch.Generator().manual_seed(1)
    noise = 0.1 * torch.randn(2, 64, generator=generator)
    expert, learner = at_rest(0.5 + noise[0]), at_rest(-0.5 + noise[1])
    # AIRL's f has the shape of the narrow log pi to make up for, which the penalty's slope of 1 would not let it
    options = {"penalty": 0.0} if cls is AIRL else {}
    strategy = learn(one_dimensional(cls, **options), expert, learner)
    with torch.no_grad():
        assert strategy.rewards(expert).min() > strategy.rewards(learner).max()
        assert (strategy.logits(strategy.inputs(expert)) > 0).all()
        assert (strategy.logits(strategy.inputs(learner)) < 0).all()
    _, metrics = strategy.discriminator_loss(learner, expert)
    assert metrics["discriminator_accuracy_expert"] == metrics["discriminator_accuracy_learner"] == 1


def test_the_accuracies_are_of_the_side_in_their_name():
    strategy = one_dimensional(GAIL)
    strategy.score = lambda inputs: inputs.sum(-1)                  # the logit is the action
    expert, learner = at_rest([0.5, 0.5, 0.5, -0.5]), at_rest([-0.5, 0.5, 0.5, 0.5])
    strategy.penalty = 0.0
    _, metrics = strategy.discriminator_loss(learner, expert)
    assert metrics["discriminator_accuracy_expert"] == 0.75
    assert metrics["discriminator_accuracy_learner"] == 0.25


def densities():
    """Two 1-D densities of actions on (-1, 1)."""
    return stats.beta(4, 2.5, loc=-1, scale=2), stats.beta(2, 3, loc=-1, scale=2)


@ADVERSARIAL
def test_the_best_discriminator_is_the_ratio_of_densities(cls):
    """GAIL:  f = log p_expert - log p_learner;  AIRL:  f = log p_expert - log p_learner + temperature log pi.

    Both densities are stood for by their quantiles, so that no noise of sampling is learnt.
    """
    p_expert, p_learner = densities()
    quantiles = (np.arange(100) + 0.5) / 100
    strategy = one_dimensional(cls, penalty=0.0)
    strategy.log_temperature.data.fill_(np.log(0.5))
    learn(strategy, at_rest(p_expert.ppf(quantiles)), at_rest(p_learner.ppf(quantiles)), steps=400, lr=2e-3)
    actions = np.linspace(-0.6, 0.7, 60)
    batch = at_rest(actions)
    ratio = torch.tensor(p_expert.logpdf(actions) - p_learner.logpdf(actions), dtype=torch.float32)
    with torch.no_grad():
        log_policy = strategy.policy(batch.observations).log_probability(batch.actions)
        wanted = ratio if cls is GAIL else ratio + 0.5 * log_policy
        assert ratio.max() - ratio.min() > 3
        assert (strategy.logits(strategy.inputs(batch)) - ratio).abs().max() < 0.25
        assert (strategy.rewards(batch) - wanted).abs().max() < 0.25


@ADVERSARIAL
def test_the_environments_reward_is_not_looked_at(cls):
    strategy, batch = build_strategy(cls), transitions()
    other = Transitions(**vars(batch) | {"rewards": torch.full((6,), float("nan"))})
    assert torch.equal(strategy.rewards(batch), strategy.rewards(other))
    assert strategy.critic_loss(other)[0].isfinite()


def test_airl_scores_with_reward_and_potential():
    strategy, batch = build_strategy(AIRL, discount=0.9), transitions(2, terminated=[0, 1])
    alive, dead = torch.zeros(1), torch.tensor([10.0])
    for row in range(2):
        state = torch.cat([batch.observations[row], alive])
        following = torch.cat([torch.zeros(3), dead]) if row == 1 else torch.cat([batch.next_observations[row], alive])
        reward = strategy.reward_network(torch.cat([state, batch.actions[row]])[None])
        expected = reward + 0.9 * strategy.potential(following[None]) - strategy.potential(state[None])
        torch.testing.assert_close(strategy.rewards(batch)[row], expected[0])


def test_airls_potential_cancels_along_an_episode():
    """sum gamma^t f_t = sum gamma^t g_t + gamma^T h(s_T) - h(s_0)."""
    strategy, steps, discount = build_strategy(AIRL, discount=0.9), 20, 0.9
    path, actions = torch.randn(steps + 1, 3), torch.rand(steps, 2)
    batch = Transitions(path[:-1], actions, torch.zeros(steps), path[1:], torch.zeros(steps))
    weights = discount ** torch.arange(steps)
    states = torch.cat([path, torch.zeros(steps + 1, 1)], dim=-1)
    rewards = strategy.reward_network(torch.cat([states[:-1], actions], dim=-1))
    ends = strategy.potential(states[[0, -1]])
    expected = (weights * rewards).sum() + discount**steps * ends[1] - ends[0]
    torch.testing.assert_close((weights * strategy.rewards(batch)).sum(), expected, rtol=1e-4, atol=1e-4)


def test_airls_logit_knows_the_policy_and_trains_nothing_of_it():
    strategy, batch = build_strategy(AIRL), transitions(terminated=[0, 0, 1, 0, 1, 0])
    strategy.log_temperature.data.fill_(np.log(0.3))
    batch.actions.mul_(0.5)                                         # where log pi is within its bounds
    inputs = strategy.inputs(batch)
    log_policy = strategy.policy(batch.observations).log_probability(batch.actions)
    assert (log_policy.abs() < 20).all()
    torch.testing.assert_close(strategy.logits(inputs), strategy.score(inputs) - 0.3 * log_policy)
    absorbed = strategy.absorbed(3)
    torch.testing.assert_close(strategy.logits(absorbed), strategy.score(absorbed))
    strategy.logits(inputs).sum().backward()
    assert all(parameter.grad is None for parameter in strategy.network.parameters())


def test_airls_logit_of_an_impossible_action_is_bounded():
    strategy = one_dimensional(AIRL)
    final = [layer for layer in strategy.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(final.weight)
    final.bias.data = torch.tensor([5.0, -100.0])                   # a near-certain action at tanh(5)
    inputs = strategy.inputs(at_rest([-1.0, 1.0, 0.0]))
    assert (strategy.logits(inputs) - strategy.score(inputs)).abs().max() <= 20


@ADVERSARIAL
@pytest.mark.parametrize(("batch_size", "demonstrated"), [(8, 2), (11, 2)])
def test_a_quarter_of_what_actor_and_critics_learn_from_is_demonstrated(cls, batch_size, demonstrated):
    strategy, replayed = build_strategy(cls, batch_size=batch_size), transitions(batch_size)
    expert = transitions(1, seed=1, terminated=[1.0])
    strategy.expert = expert
    strategy.border.mean.fill_(2.0)
    mixed = strategy.mixed(replayed)
    assert len(mixed.rewards) == batch_size
    assert torch.equal(mixed.actions[:demonstrated], expert.actions.expand(demonstrated, -1))
    assert torch.equal(mixed.observations[:demonstrated], expert.observations.expand(demonstrated, -1) - 2)
    assert torch.equal(mixed.next_observations[:demonstrated], expert.next_observations.expand(demonstrated, -1) - 2)
    assert (mixed.terminated[:demonstrated] == 1).all()
    for name, column in vars(replayed).items():
        assert torch.equal(getattr(mixed, name)[demonstrated:], column[demonstrated:])


@ADVERSARIAL
def test_the_discriminator_takes_only_the_replay_for_the_learners(cls):
    """Its demonstrations in the learner's place would teach it that the expert is the learner."""
    strategy, replayed = build_strategy(cls, batch_size=6), transitions()
    strategy.expert = transitions(seed=1)
    seen = []
    loss = strategy.discriminator_loss
    strategy.discriminator_loss = lambda learner, expert: seen.append((learner, expert)) or loss(learner, expert)
    by_hand(strategy)(replayed)
    ((learner, expert),) = seen
    assert learner is replayed
    assert len(expert.rewards) == 6


# What they learn


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    """One episode of InvertedPendulum-v5 by a linear controller, which balances the pole until the time limit."""
    played = play(
        lambda observations: (observations @ torch.tensor([1.0, 20.0, 1.0, 2.0]))[:, None].clamp(-3, 3),
        make("InvertedPendulum-v5", 1),
        [0],
        record=True,
    )
    assert played.lengths.tolist() == [1000]
    columns = {name: torch.from_numpy(getattr(played, name)) for name in ("observations", "actions")}
    path = tmp_path_factory.mktemp("balanced") / "pendulum.pt"
    return write_pairs(path, (1000,), mean_reward=1000.0, metadata={"environment_id": "InvertedPendulum-v5"}, **columns)


@EVERY
def test_the_pole_is_held_up_longer_than_by_chance(cls, balanced):
    """Where episodes terminate, an imitator could learn that dying at once is best: its steps are unlike the expert's."""
    torch.manual_seed(0)
    options = {"total_environment_steps": 2500, "num_envs": 4, "learning_starts": 500, "batch_size": 64}
    faster = functools.partial(torch.optim.Adam, lr=1e-3)
    strategy = build_strategy(cls, 4, (-3.0,), (3.0,), (64, 64), updates_per_step=0.5, optimizer=faster, **options)
    train(strategy, path=None if cls is SAC else balanced)
    strategy.eval()
    returns = play(strategy, make("InvertedPendulum-v5", 10), SELECTION_BANK.seeds(10)).returns
    assert returns.mean() > 20                                      # at random 5


# Absorbing states


@ADVERSARIAL
def test_a_terminated_transition_leads_to_the_absorbing_state(cls):
    strategy, batch = build_strategy(cls), transitions(3, terminated=[0, 1, 0])
    inputs = strategy.inputs(batch)
    assert inputs.shape == (3, 4 + 2 + 4)
    torch.testing.assert_close(inputs[:, :4], torch.cat([batch.observations, torch.zeros(3, 1)], dim=-1))
    torch.testing.assert_close(inputs[:, 4:6], batch.actions)
    assert inputs[1, 6:].tolist() == [0, 0, 0, 10]
    for row in (0, 2):
        assert inputs[row, 6:].tolist() == [*batch.next_observations[row].tolist(), 0]
    assert strategy.absorbed(2).tolist() == [[0, 0, 0, 10, 0, 0, 0, 0, 0, 10]] * 2
    strategy.discount = 0.8
    torch.testing.assert_close(strategy.value_after_termination(), 5 * strategy.score(strategy.absorbed(1))[0])


@ADVERSARIAL
@pytest.mark.parametrize("who_dies", ["learner", "expert"])
def test_dying_is_worth_what_the_expert_makes_of_it(cls, who_dies):
    """Both act alike; only that one of them terminates tells them apart."""
    actions = np.linspace(-0.5, 0.5, 32)
    dies, lives = at_rest(actions, np.float32(np.arange(32) % 2)), at_rest(actions)
    expert, learner = (lives, dies) if who_dies == "learner" else (dies, lives)
    strategy = learn(one_dimensional(cls), expert, learner)
    with torch.no_grad():
        after, living = strategy.value_after_termination(), strategy.rewards(lives).mean() / (1 - strategy.discount)
    sign = -1 if who_dies == "learner" else 1
    assert sign * after > 50
    assert sign * (after - living) > 0


def test_the_absorbing_states_reward_is_the_ratio_of_how_often_each_is_there():
    """64 steps each, of which 16 of the expert's and 32 of the learner's terminate: f = log (16 / 80) / (32 / 96)."""
    actions = np.linspace(-0.5, 0.5, 64)
    expert, learner = (at_rest(actions, np.float32(np.arange(64) % every == 0)) for every in (4, 2))
    strategy = learn(one_dimensional(GAIL, penalty=0.0), expert, learner, steps=300)
    with torch.no_grad():
        assert strategy.score(strategy.absorbed(1)).item() == pytest.approx(np.log(0.6), abs=0.05)
        assert strategy.value_after_termination().item() == pytest.approx(100 * np.log(0.6), abs=5)
        living = np.log((64 / 80) / (64 / 96))
        assert strategy.rewards(expert).mean().item() == pytest.approx(living, abs=0.05)


# A discriminator that has won


def test_a_discriminator_that_has_won_is_warned_of_once():
    strategy = one_dimensional(GAIL)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for accuracy in (0.5, 0.95, 1.0):
            for _ in range(5000):
                strategy._watch(accuracy)
            assert len(caught) == (accuracy == 1.0)
        for accuracy in (0.5, 1.0):
            for _ in range(5000):
                strategy._watch(accuracy)
    assert len(caught) == 1
    assert "--model.penalty" in str(caught[0].message)
    assert "--model.discriminator_every" in str(caught[0].message)


def test_updates_of_the_discriminator_feed_the_watch():
    strategy = one_dimensional(GAIL, batch_size=16, discriminator_every=3)
    by_hand(strategy)
    seen = []
    strategy._watch = seen.append
    strategy.expert = at_rest(np.full(50, 0.9))
    for update in range(7):
        strategy.update_rewards(at_rest(np.full(16, -0.9)), update)
    assert len(seen) == 3                                           # of updates 0, 3 and 6
    for update in range(0, 300, 3):
        strategy.update_rewards(at_rest(np.full(16, -0.9)), update)
    assert seen[-1] == 1


# What a run warns of once, however often it is resumed


def warnings_of(call, *values):
    """The messages of the warnings that ``call`` gives, value after value."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in values:
            call(value)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("temperatures", "words"),
    [([1.0, 99.0, 1e-6], None), ([99.0, 101.0, 200.0], "the temperature is 101"), ([math.nan, math.inf], "is nan")],
    ids=["usual", "high", "not finite"],
)
def test_a_temperature_that_diverges_is_warned_of_once(temperatures, words):
    strategy = tiny()

    def watch(temperature):
        strategy.log_temperature.data.fill_(math.log(temperature))
        strategy._watch_temperature()

    messages = warnings_of(watch, *temperatures)
    assert len(messages) == (words is not None)
    assert all(words in message and "--model.optimizer.lr" in message for message in messages)


class SaveAtTheEnd(Callback):
    def on_train_end(self, trainer, module):
        trainer.save_checkpoint("end.ckpt")


def test_training_watches_the_temperature_and_a_resumed_run_remembers(pendulum_data, monkeypatch):
    monkeypatch.setattr(GAIL, "log_every", 1)
    first, second = tiny(GAIL), tiny(GAIL)
    first.log_temperature.data.fill_(10.0)
    train(first, path=pendulum_data, callbacks=[SaveAtTheEnd()])
    assert first._warned_of == ["temperature"]
    train(second, path=pendulum_data, ckpt_path="end.ckpt")         # takes no further step
    assert second.optimizer_steps == first.optimizer_steps
    assert second._warned_of == ["temperature"]
    assert second._accuracy == first._accuracy != 0.5
    assert second._measured.keys() == first._measured.keys()
    assert all(torch.equal(value, second._measured[name]) for name, value in first._measured.items())


def points(*halves, steps=10_000, points_a_half=10):
    """A curve of (environment steps, normalized return), its halves around the given means."""
    noise = 0.01 * (-1.0) ** np.arange(points_a_half)
    returns = np.concatenate([mean + noise for mean in halves])
    return [(steps * number, value) for number, value in enumerate(returns)]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (points(0.04, 0.04), 1),
        (points(0.04, 0.02), 1),
        (points(0.0, 0.3, 0.3), 1),
        ([(number, 0.0) for number in range(0, 300_000, 100_000)], 0),
        (points(0.04, 0.04, steps=5_000), 0),
        (points(0.9, 0.9), 0),
        (points(math.nan, math.nan), 0),
        ([(10_000 * number, 0.01 * number) for number in range(50)], 0),
    ],
    ids=["flat", "falling", "flat after a rise", "few points", "few steps", "arrived", "no expert", "slow but steady"],
)
def test_a_return_that_does_not_move_is_warned_of_once(curve, expected):
    rollouts = Rollouts()
    messages = warnings_of(lambda point: rollouts._watch(*point), *curve)
    assert len(messages) == expected
    assert all("has not moved for 1" in message for message in messages)
    resumed = Rollouts()
    resumed.load_state_dict(rollouts.state_dict())
    again = warnings_of(lambda point: resumed._watch(*point), *[(curve[-1][0] + steps, 0.0) for steps, _ in curve])
    assert again == [] or not expected


# Transitions of demonstrations


def expected_transitions(lengths, limit, never_terminates, subsample, trained):
    """(episode, step, terminated) of each pair that has a successor."""
    rows = []
    for episode, length in enumerate(lengths[:trained]):
        for step in range(0, length, subsample):
            last = step == length - 1
            cut = never_terminates or length >= limit or episode == len(lengths) - 1
            if not (last and cut):
                rows.append((episode, step, float(last)))
    return rows


@pytest.mark.parametrize("subsample", [1, 3, 7])
@pytest.mark.parametrize(
    ("environment_id", "sizes", "lengths", "options", "trained"),
    [
        ("InvertedPendulum-v5", (4, 1), (10, 7, 1000, 1, 13, 7), {}, 6),
        ("InvertedPendulum-v5", (4, 1), (10, 7, 1000, 1, 13, 7), {"episodes": 4}, 4),
        ("InvertedPendulum-v5", (4, 1), (10, 7, 5) * 4, {}, 11),    # the last one is held out
        ("HalfCheetah-v5", (17, 6), (20, 20, 20, 9), {}, 4),
    ],
    ids=["all", "the first four", "one held out", "HalfCheetah"],
)
def test_transitions_are_those_of_the_episodes(environment_id, sizes, lengths, options, trained, subsample, tmp_path):
    path = write_pairs(tmp_path / "data.pt", lengths, *sizes)
    data = Demonstrations(path, environment_id, subsample=subsample, batch_size=1, **options)
    data.prepare_data()
    data.setup("fit")
    observations, actions, following, terminated = data.training_transitions
    expected = expected_transitions(lengths, 1000, environment_id == "HalfCheetah-v5", subsample, trained)
    content = torch.load(path, weights_only=True)
    starts = np.cumsum([0, *lengths])
    rows = [starts[episode] + step for episode, step, _ in expected]
    assert observations[:, :2].tolist() == [[episode, step] for episode, step, _ in expected]
    assert torch.equal(observations, content["observations"][rows])
    assert torch.equal(actions, content["actions"][rows])
    assert terminated.tolist() == [last for _, _, last in expected]
    for row, (episode, step, last) in enumerate(expected):
        if last:
            assert not following[row].any()
        else:
            assert following[row, :2].tolist() == [episode, step + 1]
            assert torch.equal(following[row], content["observations"][rows[row] + 1])


# Refusals: before the first step, each with its remedy


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (SAC, {"replay_capacity": 255}, ["--model.replay_capacity 255", "a batch, 256"]),
        (SAC, {"learning_starts": 255}, ["--model.learning_starts 255", "a batch, 256"]),
        (SAC, {"num_envs": 0}, ["--model.num_envs 0", "wanted at least 1"]),
        (SAC, {"num_envs": 4, "updates_per_step": 0.2}, ["--model.updates_per_step 0.2", "1 / num_envs", "0.25"]),
        (SAC, {"total_environment_steps": 5000}, ["--model.learning_starts 5000", "--model.total_environment_steps, 5000"]),
        (SAC, {"discount": 1.0}, ["--model.discount 1", "below 1"]),
        (SAC, {"initial_temperature": 0.0}, ["--model.initial_temperature 0", "above 0"]),
        (SAC, {"target_rate": 0.0}, ["--model.target_rate 0", "above 0"]),
        (SAC, {"actor_every": 0}, ["--model.actor_every 0", "at least 1"]),
        (GAIL, {"discriminator_every": 0}, ["--model.discriminator_every 0", "at least 1"]),
        (AIRL, {"penalty": -1.0}, ["--model.penalty -1", "0 or more"]),
    ],
)
def test_options_that_cannot_work_are_refused(cls, options, words):
    with pytest.raises(InputError) as error:
        build_strategy(cls, **options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--model GAIL --env InvertedPendulum-v5 --data.path null", ["--data.path null", "GAIL", "demonstrations"]),
        ("--model AIRL --env InvertedPendulum-v5 --data.path null", ["--data.path null", "AIRL", "demonstrations"]),
        ("--model SAC --data.path null --model.replay_capacity 255", ["--model.replay_capacity 255", "a batch, 256"]),
        ("--model SAC --data.path null --model.num_envs 4 --model.updates_per_step 0.2", ["updates_per_step 0.2", "0.25"]),
        ("--model SAC --data.path null --model.total_environment_steps 5000", ["--model.learning_starts 5000"]),
        ("--model GAIL --model.discriminator_every 0", ["--model.discriminator_every 0", "at least 1"]),
        ("--model Diffusion --model.act_steps 1000", ["--model.act_steps 1000", "--model.steps"]),
        ("--model SAC --data.path null --trainer.max_steps 100", ["--trainer.max_steps 100", "total_environment_steps"]),
        ("--model GAIL --data.path null --trainer.max_epochs 2", ["--trainer.max_epochs 2", "total_environment_steps"]),
        ("--model SAC --data.path null --env CartPole-v1", ["CartPole-v1", "Discrete"]),
        ("--model GAIL --env InvertedPendulum-v5", ["no expert", "--data.path", "collect --env InvertedPendulum-v5"]),
        ("--model GAIL --env HalfCheetah-v5 --data.path pendulum.pt", ["says HalfCheetah-v5", "says InvertedPendulum-v5"]),
        (
            "--model AIRL --env InvertedPendulum-v5 --data.path unknown.pt --data.validation_fraction 0",
            ["unknown.pt", "episode_lengths", "--data.episode_length N."],
        ),
    ],
)
def test_bad_input_is_refused_with_its_remedy(arguments, words, pendulum_data, capsys):
    write_pairs("unknown.pt", (10,), observation_dim=4, action_dim=1, episode_lengths=None)
    error = refused(capsys, "fit", *arguments.split())
    for word in words:
        assert word in error
    assert not Path("lightning_logs").exists()
    assert not Path("checkpoints").exists()
