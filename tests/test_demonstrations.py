"""The data module: budgets and splits by episode, checks against the environment, references, state."""

import inspect
import itertools
import re
import shutil
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from conftest import build_strategy, write_pairs
from lightning.pytorch import Callback, Trainer

from lightning_bc.arguments import Parser
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.environments import environment_spaces
from lightning_bc.errors import InputError
from lightning_bc.references import References
from lightning_bc.strategies import MSE
from lightning_bc.strategies.contract import Data, Needs

UNEQUAL = (5, 3, 8, 1, 6, 2, 7, 4, 9, 5, 3, 7)


def set_up(path, stage="fit", **options):
    demonstrations = Demonstrations(path=str(path), **{"environment_id": "HalfCheetah-v5", "batch_size": 4, **options})
    demonstrations.setup(stage)
    return demonstrations


def rows_of(batches):
    """(episode, step) of each pair of one iteration, sorted."""
    return sorted((int(row[0]), int(row[1])) for group in batches for observations, _ in group for row in observations)


def rows_wanted(lengths, episodes, subsample=1):
    return [(episode, step) for episode in episodes for step in range(0, lengths[episode], subsample)]


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        set_up(path, **options)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return write_pairs(tmp_path / "cheetah.pt", UNEQUAL)


# Splits and budgets


@pytest.mark.parametrize(
    ("options", "training", "validation", "subsample"),
    [
        pytest.param({}, range(11), range(11, 12), 1, id="default: at least one episode"),
        pytest.param({"validation_fraction": 0.25}, range(9), range(9, 12), 1, id="a quarter"),
        pytest.param({"validation_fraction": 0}, range(12), range(0), 1, id="none held out"),
        pytest.param({"episodes": 10, "validation_fraction": 0.2}, range(8), range(8, 10), 1, id="budget of 10"),
        pytest.param({"episodes": 9, "validation_fraction": 0.2}, range(9), range(0), 1, id="too few to hold out"),
        pytest.param({"episodes": 1}, range(1), range(0), 1, id="budget of 1"),
        pytest.param({"subsample": 3}, range(11), range(11, 12), 3, id="every third of each episode"),
        pytest.param({"subsample": 100, "validation_fraction": 0.25}, range(9), range(9, 12), 100, id="first of each"),
        pytest.param({"episodes": 2, "subsample": 2}, range(2), range(0), 2, id="budget and every second"),
    ],
)
def test_pairs_are_split_by_whole_episodes(path, options, training, validation, subsample):
    demonstrations = set_up(path, **options)
    assert rows_of(demonstrations.train_dataloader()) == rows_wanted(UNEQUAL, training, subsample)
    assert rows_of(demonstrations.val_dataloader()) == rows_wanted(UNEQUAL, validation, subsample)
    assert demonstrations.source["training_episodes"] == len(training)
    assert demonstrations.source["validation_episodes"] == len(validation)
    assert demonstrations.source["training_pairs"] == len(demonstrations.training_observations)


def test_each_observation_keeps_its_action(path):
    file = torch.load(path, weights_only=True)
    action_of = {tuple(o.tolist()): a for o, a in zip(file["observations"], file["actions"], strict=True)}
    for observations, actions in itertools.chain.from_iterable(set_up(path, subsample=2).train_dataloader()):
        for observation, action in zip(observations, actions, strict=True):
            assert torch.equal(action_of[tuple(observation.tolist())], action)


def test_training_observations_hold_nothing_of_the_validation_episodes(path):
    demonstrations = set_up(path, validation_fraction=0.25)
    assert demonstrations.training_observations[:, 0].max() == 8


def test_seed_decides_the_order_and_not_the_split(path):
    def order(seed):
        demonstrations = set_up(path, seed=seed, validation_fraction=0.25)
        return torch.cat([observations for group in demonstrations.train_dataloader() for observations, _ in group])

    assert torch.equal(order(0), order(0))
    assert not torch.equal(order(0), order(1))
    assert torch.equal(order(0).sum(0).round(decimals=3), order(1).sum(0).round(decimals=3))


def test_budget_beyond_the_file_is_refused(path):
    message = refusal(path, episodes=13)
    assert "--data.episodes 13" in message
    assert f"{path} holds 12 episodes" in message


# Files of four keys


def four_keys(path, pairs, observation_dim=17, action_dim=6):
    absent = dict.fromkeys(("episode_lengths", "random_returns", "expert_returns"))
    return write_pairs(path, (pairs,), observation_dim, action_dim, **absent)


def test_half_cheetah_needs_no_episode_lengths(tmp_path):
    """HalfCheetah always plays its 1000 steps; the last episode may have been cut."""
    demonstrations = set_up(four_keys(tmp_path / "cheetah.pt", 11_500), validation_fraction=0.2, batch_size=1000)
    assert demonstrations.source["validation_episodes"] == 2
    steps = demonstrations.training_observations[:, 1]
    assert steps.tolist() == list(range(10_000))
    ((validation, _),), *rest = demonstrations.val_dataloader()
    assert rest == []
    assert sorted(validation[:, 1].tolist()) == list(range(10_000, 11_500))


def test_rewards_without_episode_lengths_are_the_demonstrators_returns(tmp_path):
    """Pendulum always plays its 200 steps, so that the rewards of 600 are three returns."""
    content = {"observations": torch.randn(600, 3), "actions": torch.rand(600, 1), "rewards": torch.full((600,), -0.5)}
    torch.save(content, tmp_path / "pendulum.pt")
    demonstrations = set_up(tmp_path / "pendulum.pt", environment_id="Pendulum-v1")
    assert demonstrations.references.expert_return == -100.0
    assert " episodes of 3; " in demonstrations.material.summary(600)


def test_episode_length_replaces_the_default(tmp_path):
    demonstrations = set_up(four_keys(tmp_path / "cheetah.pt", 100), episode_length=10, validation_fraction=0.1)
    assert len(demonstrations.training_observations) == 90


def test_episode_lengths_of_the_file_outrank_the_flag(path):
    assert len(set_up(path, episode_length=1).training_observations) == sum(UNEQUAL[:11])


@pytest.mark.parametrize(
    "options",
    [{}, {"validation_fraction": 0.0, "episodes": 1}, {"validation_fraction": 0.0, "subsample": 2}],
    ids=["split", "budget", "subsampled"],
)
def test_hopper_needs_episode_lengths_where_episodes_matter(tmp_path, options):
    path = four_keys(tmp_path / "hopper.pt", 100, 11, 3)
    message = refusal(path, environment_id="Hopper-v5", **options)
    assert path in message
    assert "--data.episode_length N" in message
    assert "--data.validation_fraction 0" in message


def test_hopper_without_episode_lengths_is_taken_as_it_is_where_nobody_asks(tmp_path):
    path = four_keys(tmp_path / "hopper.pt", 100, 11, 3)
    demonstrations = set_up(path, environment_id="Hopper-v5", validation_fraction=0.0)
    assert len(demonstrations.training_observations) == 100
    demonstrations = set_up(path, environment_id="Hopper-v5", validation_fraction=0.1, episode_length=7)
    assert demonstrations.source["validation_episodes"] == round(15 * 0.1)  # 14 episodes of 7 and a cut one
    assert len(demonstrations.training_observations) == 13 * 7


# Checks against the environment


@pytest.mark.parametrize(
    ("dimensions", "words"),
    [
        ((16, 6), ["observations have 16 dimensions", "HalfCheetah-v5 have 17"]),
        ((17, 5), ["actions have 5 dimensions", "HalfCheetah-v5 have 6"]),
    ],
    ids=["observations", "actions"],
)
def test_other_dimensions_are_refused(tmp_path, dimensions, words):
    path = write_pairs(tmp_path / "cheetah.pt", (5,) * 12, *dimensions)
    message = refusal(path)
    assert [word for word in [path, "--env", *words] if word not in message] == []


@pytest.mark.parametrize("value", [1.001, -3.0])
def test_action_outside_the_bounds_is_named(tmp_path, value):
    actions = torch.zeros(60, 6)
    actions[17, 2] = actions[40, 5] = value
    path = write_pairs(tmp_path / "cheetah.pt", (5,) * 12, actions=actions)
    message = refusal(path)
    wanted = [path, "actions[17]", str(value), "first of 2", "bounds of HalfCheetah-v5", "--data.clip_actions true"]
    assert [word for word in wanted if word not in message] == []


def test_rounding_at_the_bounds_is_no_violation(tmp_path):
    actions = torch.full((60, 6), 1 + 1e-6)
    assert len(set_up(write_pairs(tmp_path / "cheetah.pt", (5,) * 12, actions=actions)).training_observations) == 55


def test_bounds_are_those_of_the_environment(tmp_path):
    path = write_pairs(tmp_path / "pendulum.pt", (5,) * 12, 3, 1, actions=torch.full((60, 1), 1.9))
    demonstrations = set_up(path, environment_id="Pendulum-v1")
    assert (demonstrations.action_low, demonstrations.action_high) == ([-2.0], [2.0])
    assert demonstrations.observation_dim == 3


def test_demonstrations_of_another_environment_are_refused(tmp_path):
    path = write_pairs(tmp_path / "cheetah.pt", metadata={"environment_id": "HalfCheetah-v4"})
    message = refusal(path)
    wanted = [path, "demonstrations of HalfCheetah-v4", "--env is HalfCheetah-v5", "--data.path"]
    assert [word for word in wanted if word not in message] == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("batch_size", "0"),
        ("batch_size", "-1"),
        ("subsample", "0"),
        ("episodes", "0"),
        ("episode_length", "0"),
        ("validation_fraction", "1.0"),
        ("validation_fraction", "-0.1"),
        ("validation_fraction", "nan"),
    ],
)
def test_flag_that_makes_no_sense_is_named(flag, value):
    parser = Parser()
    parser.add_class_arguments(Demonstrations, "data")
    with pytest.raises(InputError, match=rf"(?s)data\.{flag}.*{value}: wanted .+"):
        parser.parse_args([f"--data.{flag}", value])


def test_batch_larger_than_the_data_warns_and_goes_on(path):
    with pytest.warns(UserWarning, match=r"--data\.batch_size 1000 is more than the 53 training pairs"):
        demonstrations = set_up(path, batch_size=1000)
    ((observations, actions),), *rest = demonstrations.train_dataloader()
    assert rest == []
    assert len(observations) == len(actions) == 53


def test_usual_data_warn_of_nothing(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_up(path)


def test_path_holds_the_environment():
    assert Demonstrations(environment_id="Pendulum-v1").path == "data/Pendulum-v1-sampled-2400000.pt"
    assert Demonstrations(path="mine/{env}.npz").path == "mine/HalfCheetah-v5.npz"


# References


def test_references_come_from_the_file(path):
    references = set_up(path).references
    assert (references.random_return, references.expert_return) == (-300.0, 10_000.0)
    assert references.expert_source == "expert's mean action, 100 test-bank episodes, 0 of which failed"


def test_mean_reward_stands_in_for_an_absent_expert_and_says_so(tmp_path):
    path = write_pairs(tmp_path / "cheetah.pt", expert_returns=None)
    references = set_up(path).references
    assert references.expert_return == 9000.0
    assert references.expert_source == "mean return of the data file (no expert at hand)"


def test_what_was_read_is_said_where_a_format_leaves_it_open(tmp_path, capsys):
    h5py = pytest.importorskip("h5py", reason="the optional extra hdf5 is not installed")
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        for number in range(2):
            group = file.create_group(f"data/demo_{number}")
            group["obs/b"], group["obs/a"], group["actions"] = np.zeros((5, 1)), np.zeros((5, 3)), np.zeros((5, 1))
    path, keys = str(tmp_path / "data.hdf5"), ["a", "b"]
    data = set_up(path, environment_id="InvertedPendulum-v5", validation_fraction=0.0, observation_keys=keys)
    assert data.training_observations.shape == (10, 4)
    assert capsys.readouterr().out.count("data.hdf5: observations are a (3), b (1), side by side in this order") == 1
    with pytest.raises(InputError, match=r"The observations are a \(3\), b \(1\), .* others with --data\.observation_keys"):
        set_up(path, environment_id="Pendulum-v1", observation_keys=keys)


def test_without_an_expert_and_any_return_there_is_no_reference(tmp_path):
    absent = {"mean_reward": None, "std_reward": None, "expert_returns": None}
    path = write_pairs(tmp_path / "pendulum.pt", (5,) * 12, 4, 1, **absent)
    references = set_up(path, environment_id="InvertedPendulum-v5").references
    assert not references.has_expert
    assert references.expert_source == "unknown: the data file has no mean_reward or rewards and no expert is shipped"


def test_random_policy_is_played_where_the_file_does_not_know_it(tmp_path):
    absent = {"random_returns": None, "expert_returns": None}
    path = write_pairs(tmp_path / "pendulum.pt", (5,) * 12, 3, 1, mean_reward=-150.0, **absent)
    references = set_up(path, environment_id="Pendulum-v1").references
    environment, generator, returns = gymnasium.make("Pendulum-v1"), np.random.default_rng(0), []
    for seed in range(100):
        environment.reset(seed=seed)
        returns.append(sum(environment.step(generator.uniform(-2, 2, 1).astype(np.float32))[1] for _ in range(200)))
    standard_error = np.std(returns) * np.sqrt(2 / 100)
    assert abs(references.random_return - np.mean(returns)) < 4 * standard_error
    assert references.expert_return == -150.0


def test_score_is_0_for_random_and_1_for_the_expert():
    references = References(-300.0, 10_000.0, "expert")
    np.testing.assert_allclose(references.normalized(np.array([-300.0, 10_000.0, 4850.0, -10_600.0])), [0, 1, 0.5, -1])


@pytest.mark.parametrize(
    ("expert", "returns", "failed"),
    [
        (10_000.0, [4999.0, 5001.0, -300.0, 12_000.0], [True, False, True, False]),
        (-100.0, [-149.0, -151.0, -90.0], [False, True, False]),
    ],
    ids=["positive returns", "negative returns"],
)
def test_failed_episodes_have_less_than_half_of_the_experts_return(expert, returns, failed):
    assert References(-1200.0, expert, "expert").failed(np.array(returns)).tolist() == failed


# State


def test_state_brings_references_and_source_to_a_test_without_the_file(path, tmp_path):
    state = set_up(path).state_dict()
    torch.save(state, tmp_path / "state.pt")
    fresh = Demonstrations(path="nowhere.pt", environment_id="HalfCheetah-v5")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    said = "expert's mean action, 100 test-bank episodes, 0 of which failed"
    assert fresh.references == References(-300.0, 10_000.0, said)
    assert fresh.source["path"] == path
    assert fresh.source["training_pairs"] == 53


def test_run_goes_on_with_the_same_file_wherever_it_lies(path, tmp_path):
    state = set_up(path).state_dict()
    moved = tmp_path / "moved.pt"
    shutil.copy(path, moved)
    demonstrations = set_up(moved)
    demonstrations.load_state_dict(state)
    assert demonstrations.references.random_return == -300.0


def test_run_does_not_go_on_with_another_file(path, tmp_path):
    state = set_up(path).state_dict()
    other = set_up(write_pairs(tmp_path / "other.pt", UNEQUAL, mean_reward=9001.0))
    with pytest.raises(InputError, match="is not the file that this run began with") as caught:
        other.load_state_dict(state)
    assert other.path in str(caught.value)
    assert "start a new run without --ckpt_path" in str(caught.value)


# Under a Trainer


class Served(Callback):
    """Note the (episode, step) of each pair that training sees, and save a checkpoint after ``save_after`` batches."""

    def __init__(self, save_after=None, checkpoint=None):
        self.batches, self.save_after, self.checkpoint = [], save_after, checkpoint

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        self.batches += [[(int(row[0]), int(row[1])) for row in observations] for observations, _ in batch]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        if len(self.batches) == self.save_after:
            trainer.save_checkpoint(self.checkpoint)


def fit(path, ckpt_path=None, served=None, group_size=1, **settings):
    spaces, served = environment_spaces("HalfCheetah-v5"), served or Served()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=[served], **quiet, **settings)
    strategy = build_strategy(MSE, 17, spaces.action_low.tolist(), spaces.action_high.tolist(), hidden_sizes=(8,))
    demonstrations = Demonstrations(path, "HalfCheetah-v5", batch_size=10, validation_fraction=0.25, group_size=group_size)
    trainer.fit(strategy, datamodule=demonstrations, ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else False)
    return trainer, demonstrations, served.batches


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        pytest.param({"max_epochs": 1}, 5, id="one epoch"),
        pytest.param({"max_epochs": 3}, 15, id="three epochs"),
        pytest.param({"max_steps": 13, "max_epochs": -1}, 13, id="steps alone"),
        pytest.param({"max_steps": 2, "max_epochs": 3}, 2, id="steps within epochs"),
        pytest.param({"max_epochs": 2, "group_size": 3}, 10, id="groups that do not divide an epoch"),
        pytest.param({"max_steps": 13, "max_epochs": -1, "group_size": 4}, 13, id="groups that do not divide the steps"),
    ],
)
def test_optimizer_steps_announced_are_those_taken(path, settings, steps):
    trainer, demonstrations, batches = fit(path, **settings)
    assert demonstrations.optimizer_steps == trainer.global_step == steps
    assert demonstrations.pairs_seen(steps) == sum(len(batch) for batch in batches)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("settings", [{"max_epochs": 2}, {"max_steps": 10, "max_epochs": -1}], ids=["epochs", "steps"])
def test_trainer_sees_each_training_pair_once_a_pass(path, settings):
    _, _, batches = fit(path, **settings)
    for half in (batches[:5], batches[5:]):
        assert sorted(row for batch in half for row in batch) == rows_wanted(UNEQUAL, range(9))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("saved_after", [3, 5, 8, 10])
@pytest.mark.parametrize("settings", [{"max_epochs": 3}, {"max_steps": 15, "max_epochs": -1}], ids=["epochs", "steps"])
def test_resumed_training_sees_the_very_same_batches(path, tmp_path, settings, saved_after):
    whole = Served(saved_after, tmp_path / "middle.ckpt")
    fit(path, served=whole, **settings)
    _, _, rest = fit(path, ckpt_path=tmp_path / "middle.ckpt", **settings)
    assert whole.batches[:saved_after] + rest == whole.batches


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_strategies_with_a_history_or_a_horizon_are_served_windows(path, monkeypatch):
    monkeypatch.setattr(MSE, "set_windows", lambda *_: None)
    monkeypatch.setattr(MSE, "history", 3)
    monkeypatch.setattr(MSE, "horizon", 4)
    training, validation = [], []
    for step, seen in (("training_step", training), ("validation_step", validation)):
        monkeypatch.setattr(MSE, step, lambda self, batches, batch_index, seen=seen: seen.extend(batches))
    monkeypatch.setattr(Served, "on_train_batch_start", lambda *_: None)
    fit(path, max_epochs=1)
    assert [[tuple(column.shape) for column in batch] for batch in training] == [
        [(pairs, 3, 17), (pairs, 4, 6), (pairs, 4)] for pairs in (10, 10, 10, 10, 5)
    ]
    held_out = sum(UNEQUAL[9:])
    assert [tuple(column.shape) for column in validation[-1]] == [(held_out, 3, 17), (held_out, 4, 6), (held_out, 4)]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_file_without_a_transition_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(MSE, "needs", Needs.TRANSITIONS)
    with pytest.raises(InputError, match="MSE learns from transitions"):
        fit(write_pairs(tmp_path / "cheetah.pt", (1,) * 12), max_epochs=1)


def test_demonstrations_are_the_data_that_strategies_ask():
    wanted = {name for name in vars(Data) | Data.__annotations__ if not name.startswith("_")}
    assert wanted - set(dir(Demonstrations())) == set()
    for name in ("extend", "pairs_seen"):
        assert inspect.signature(getattr(Demonstrations, name)) == inspect.signature(getattr(Data, name))


def test_absent_default_file_without_a_shipped_expert_names_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    strategy = build_strategy(MSE, 3, [-2.0], [2.0])
    with pytest.raises(InputError, match="no expert for Pendulum-v1 is shipped") as caught:
        trainer.fit(strategy, datamodule=Demonstrations(environment_id="Pendulum-v1"))
    assert "data/Pendulum-v1-sampled-2400000.pt" in str(caught.value)
    assert "--data.path" in str(caught.value)
    assert "lightning_bc collect --env Pendulum-v1" in str(caught.value)


def test_from_python_a_path_is_a_path_and_numbers_are_looked_at(tmp_path):
    path = write_pairs(tmp_path / "cheetah.pt")
    assert Demonstrations(Path(path), "HalfCheetah-v5").path == str(path)
    for wrong, words in (
        ({"batch_size": 0}, "batch_size=0: wanted a whole number, at least 1."),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: wanted 0 to below 1."),
        ({"episodes": 0}, "episodes=0: wanted a whole number, at least 1, or None."),
        ({"episodes": 2.0}, "episodes=2.0: wanted a whole number, at least 1, or None."),
        ({"subsample": "2"}, 'subsample="2": wanted a whole number, at least 1.'),
        ({"seed": True}, "seed=True: wanted a whole number, 0 or more."),
        ({"hidden_dimensions": [-1]}, "hidden_dimensions=[-1]: wanted a list, each a whole number, 0 or more, or None."),
        ({"hidden_dimensions": 1}, "hidden_dimensions=1: wanted a list, each a whole number, 0 or more, or None."),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
            Demonstrations(str(path), "HalfCheetah-v5", **wrong)
    right = {"episodes": np.int64(2), "top_fraction": 1, "hidden_dimensions": range(2)}
    assert Demonstrations(str(path), "HalfCheetah-v5", **right).hidden_dimensions == range(2)
