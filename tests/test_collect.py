"""Collection: as many pairs as asked for, of the kind asked for, whole or not at all."""

import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import tqdm
from conftest import actor_state, build_strategy

from lightning_bc.cli import main
from lightning_bc.demonstrations import collect, load_expert, read, writing
from lightning_bc.errors import InputError
from lightning_bc.files import sha256
from lightning_bc.strategies import MSE

ENVIRONMENTS = {
    "Hopper-v5": {"observation_dim": 11, "action_dim": 3},  # ends early, after about 20 steps with a random actor
    "Pendulum-v1": {"observation_dim": 3, "action_dim": 1, "scale": 2.0},  # always 200 steps
}
KINDS = ["sampled", "deterministic", "exploratory"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("collect")


@pytest.fixture(scope="module")
def experts(folder):
    """A random soft actor-critic actor for each environment."""
    paths = {}
    for environment_id, options in ENVIRONMENTS.items():
        paths[environment_id] = folder / f"{environment_id}-actor.pt"
        torch.save(actor_state(**options), paths[environment_id])
    return paths


@pytest.fixture(scope="module")
def collected(folder, experts):
    """Collect once for each set of arguments, and hand out the same file after that."""
    files = {}

    def once(environment_id="Hopper-v5", pairs=1500, actions="sampled", seed=0):
        key = (environment_id, pairs, actions, seed)
        if key not in files:
            path = folder / f"{len(files)}.pt"
            assert collect(environment_id, str(experts[environment_id]), str(path), pairs, actions, seed) == path
            files[key] = read(path)
        return files[key]

    return once


def mean_actions(experts, environment_id, observations):
    return load_expert(experts[environment_id])(observations, deterministic=True)


@pytest.mark.parametrize("environment_id", ENVIRONMENTS)
@pytest.mark.parametrize("pairs", [1, 199, 1500])
def test_file_holds_exactly_the_pairs_asked_for(collected, environment_id, pairs):
    file = collected(environment_id, pairs)
    assert file.observations.shape == (pairs, ENVIRONMENTS[environment_id]["observation_dim"])
    assert file.actions.shape == (pairs, ENVIRONMENTS[environment_id]["action_dim"])
    assert file.rewards.shape == (pairs,)
    assert file.lengths.sum() == pairs
    assert len(file.origin.random_returns) == len(file.origin.expert_returns) == 100
    if environment_id == "Pendulum-v1":
        assert file.lengths.tolist() == [200] * (pairs // 200) + [pairs % 200] * (pairs % 200 > 0)


def test_origin_is_recorded(collected, experts):
    origin = collected(actions="exploratory", seed=3).origin
    assert origin.environment_id == "Hopper-v5"
    assert origin.expert == str(experts["Hopper-v5"])
    assert (origin.actions, origin.seed) == ("exploratory", 3)
    assert len(origin.expert_sha256) == 64
    assert origin.versions["torch"] == importlib.metadata.version("torch")  # without the build, which torch itself adds


# How episodes end


def test_ends_of_episodes_are_recorded_as_a_plain_loop_meets_them(collected, experts):
    file = collected("Hopper-v5", 1499, "deterministic")  # 149 episodes of 10 steps, and a cut one
    environment = gymnasium.make("Hopper-v5")
    expert = load_expert(experts["Hopper-v5"])
    whole = len(file.lengths) - 1  # the last one is cut where there are enough pairs
    for episode in range(3):
        observation, _ = environment.reset(seed=episode)
        for _ in range(file.lengths[episode]):
            action = expert(torch.as_tensor(observation, dtype=torch.float32)[None])[0]
            observation, _, terminated, truncated, _ = environment.step(action.numpy())
        assert terminated or truncated
        assert bool(file.terminated[episode]) == terminated
        np.testing.assert_allclose(file.final_observations[episode], observation, rtol=1e-3, atol=1e-3)
    assert file.terminated[:whole].all()  # a random actor falls long before its time is up
    assert not file.terminated[whole]


def test_episodes_whose_time_was_up_did_not_terminate(collected):
    file = collected("Pendulum-v1", 1500)
    assert not file.terminated.any()
    assert file.final_observations.shape == (8, 3)
    assert len(file.transition_rows()) == 1500  # so each pair is a transition


# The kind of the actions


@pytest.mark.parametrize("environment_id", ENVIRONMENTS)
@pytest.mark.parametrize(("actions", "means_recorded"), [("sampled", False), ("deterministic", True), ("exploratory", True)])
def test_recorded_actions_are_of_their_kind(collected, experts, environment_id, actions, means_recorded):
    file = collected(environment_id, actions=actions)
    distance = (file.actions - mean_actions(experts, environment_id, file.observations)).abs()
    if means_recorded:
        assert distance.max() < 1e-5
    else:
        assert distance.median() > 0.01
        assert (distance > 0).all(dim=1).double().mean() > 0.99


@pytest.mark.parametrize("environment_id", ENVIRONMENTS)
def test_exploratory_demonstrations_visit_what_samples_visit(collected, environment_id):
    sampled, deterministic, exploratory = (collected(environment_id, actions=actions) for actions in KINDS)
    assert torch.equal(exploratory.observations, sampled.observations)
    assert torch.equal(exploratory.rewards, sampled.rewards)
    assert not torch.equal(exploratory.actions, sampled.actions)
    assert torch.equal(exploratory.observations[0], deterministic.observations[0])  # the same start
    assert not torch.allclose(exploratory.observations[:15], deterministic.observations[:15], atol=1e-3)


def test_exploratory_labels_of_an_expert_that_plays_chunks_are_its_answers_to_what_is_observed(monkeypatch):
    module = sys.modules[collect.__module__]
    monkeypatch.setattr(module, "NUM_ENVS", 2)
    expert, kept = build_strategy(MSE, 4, [-3.0], [3.0], horizon=2, chunk=2), []
    expert.network.layers[-1].bias.data = torch.tensor([-1.0, 1.0])  # its second action is another one
    module.demonstrate(expert, "InvertedPendulum-v5", 7, "exploratory", 0, None, kept.append)
    assert kept
    for played in kept:
        torch.testing.assert_close(played.actions, expert(played.observations.unsqueeze(1))[:, 0].detach())


# Rewards and references


@pytest.mark.parametrize("environment_id", ENVIRONMENTS)
def test_mean_reward_is_that_of_the_whole_episodes(collected, environment_id):
    file = collected(environment_id)
    episodes = torch.split(file.rewards.double(), file.lengths.tolist())
    returns = np.array([rewards.sum() for rewards in episodes])
    # Whether the last one was cut cannot be seen in the file: with or without it.
    candidates = [(returns.mean(), returns.std()), (returns[:-1].mean(), returns[:-1].std())]
    found = (file.origin.mean_return, file.origin.std_return)
    assert any(np.allclose(found, candidate, rtol=1e-5) for candidate in candidates)


def test_episode_that_was_cut_does_not_count_in_mean_reward(collected):
    file = collected("Pendulum-v1", 1500)  # seven episodes of 200, and half of the eighth
    returns = file.rewards[:1400].double().reshape(7, 200).sum(1)
    assert file.origin.mean_return == pytest.approx(returns.mean().item(), rel=1e-5)
    assert file.origin.std_return == pytest.approx(returns.std(correction=0).item(), rel=1e-5)


def test_reference_returns_do_not_depend_on_what_is_collected(collected):
    sampled, deterministic = collected(actions="sampled"), collected(actions="deterministic", seed=500)
    assert sampled.origin.random_returns == deterministic.origin.random_returns
    assert sampled.origin.expert_returns == deterministic.origin.expert_returns
    assert sampled.origin.random_returns != sampled.origin.expert_returns
    assert len(set(sampled.origin.expert_returns)) == 100  # a hundred different episodes


# Seeds


@pytest.mark.parametrize("actions", KINDS)
def test_same_seed_gives_the_same_demonstrations(collected, experts, tmp_path, actions):
    first = collected(actions=actions)
    torch.manual_seed(12345)  # what the caller's random state is does not matter
    again = read(collect("Hopper-v5", str(experts["Hopper-v5"]), str(tmp_path / "again.pt"), 1500, actions))
    for key in ("observations", "actions", "rewards", "lengths"):
        assert torch.equal(getattr(again, key), getattr(first, key)), key
    assert replace(again.origin, path=first.origin.path, sha256=first.origin.sha256) == first.origin


def test_episode_i_has_seed_plus_i(collected):
    """Start states are drawn from the episode's seed alone, so seeds 2, 3 ... begin where seeds 0, 1, 2 ... went on."""

    def starts(file):
        return file.observations[file.lengths.cumsum(0) - file.lengths]

    from_0, from_2 = starts(collected(seed=0)), starts(collected(seed=2))
    assert torch.equal(from_0[2:12], from_2[:10])
    assert len(torch.unique(from_0, dim=0)) == len(from_0)


# What is refused


@pytest.mark.parametrize("expert", ["teacher", "checkpoints/teacher", "lightning_logs/teacher"])
def test_a_run_by_its_name_or_folder_demonstrates_with_its_last_checkpoint(expert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lightning_logs/teacher").mkdir(parents=True)
    Path("checkpoints/teacher").mkdir(parents=True)
    torch.save(actor_state(4, 1, scale=3.0), "checkpoints/teacher/last.ckpt")
    main(["collect", "--env", "InvertedPendulum-v5", "--expert", expert, "--pairs", "20", "--output", "pairs.pt"])
    origin = read("pairs.pt").origin
    assert Path(origin.expert).samefile("checkpoints/teacher/last.ckpt")
    assert origin.expert_sha256 == sha256("checkpoints/teacher/last.ckpt")


def test_a_name_that_no_run_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "nobody: no such expert file, and no checkpoint of such a run" in refusal("InvertedPendulum-v5", "nobody")


def refusal(*args, **options):
    with pytest.raises(InputError) as caught:
        collect(*args, **options)
    return str(caught.value)


def test_existing_file_is_refused_and_untouched(experts, tmp_path):
    path = tmp_path / "cheetah.pt"
    path.write_bytes(b"years of work")
    message = refusal("Hopper-v5", str(experts["Hopper-v5"]), str(path), 100)
    assert str(path) in message
    assert "--output" in message
    assert path.read_bytes() == b"years of work"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_under_which_the_file_could_not_be_read_is_refused(experts, tmp_path):
    message = refusal("Hopper-v5", str(experts["Hopper-v5"]), str(tmp_path / "out.npz"), 100)
    assert "out.npz: wanted a file that ends in .pt, or a folder" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"observation_dim": 12}, ["12-dimensional observations", "11-dimensional"], id="observations"),
        pytest.param({"action_dim": 2}, ["2-dimensional actions", "3-dimensional"], id="actions"),
    ],
)
def test_expert_of_other_dimensions_is_refused(tmp_path, changes, words):
    expert, output = tmp_path / "other.pt", tmp_path / "out.pt"
    torch.save(actor_state(**{**ENVIRONMENTS["Hopper-v5"], **changes}), expert)
    message = refusal("Hopper-v5", str(expert), str(output), 100)
    assert [word for word in [str(expert), "Hopper-v5", *words] if word not in message] == []
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"pairs": 0}, ["--pairs 0", "at least 1"], id="no pairs"),
        pytest.param({"seed": -1}, ["--seed -1", "0 to"], id="negative seed"),
        pytest.param({"seed": 1_000_000_000}, ["--seed 1000000000", "kept for evaluation"], id="seed of the selection bank"),
        pytest.param({"seed": 999_999_950}, ["--seed 999999950", "999,999,900"], id="seeds that would reach the bank"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(experts, tmp_path, options, words):
    message = refusal("Hopper-v5", str(experts["Hopper-v5"]), str(tmp_path / "out.pt"), **{"pairs": 100, **options})
    assert [word for word in words if word not in message] == []
    assert list(tmp_path.iterdir()) == []


def test_interrupted_collection_leaves_no_file(experts, tmp_path, monkeypatch):
    steps = []

    def interrupt(bar, number):
        steps.append(number)
        if len(steps) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(tqdm.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect("Hopper-v5", str(experts["Hopper-v5"]), str(tmp_path / "folder" / "out.pt"), 1500)
    assert len(steps) == 20  # so it was in the middle
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_progress_counts_each_step_played(experts, tmp_path, monkeypatch):
    """The bar reaches its total; it may pass it, because the last round's episodes are played to their end."""
    steps = []
    monkeypatch.setattr(tqdm.tqdm, "update", lambda bar, number: steps.append(number))
    collect("Pendulum-v1", str(experts["Pendulum-v1"]), str(tmp_path / "out.pt"), 500)
    assert sum(steps) == 600


def test_what_is_collected_to_shards_is_what_is_collected_to_a_file(collected, experts, folder, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_STEPS", 200)
    path = folder / "hopper.shards"
    assert collect("Hopper-v5", str(experts["Hopper-v5"]), str(path), 1500) == path
    shards, file = read(path), collected("Hopper-v5", 1500)
    assert len(list(path.glob("*.rows.npy"))) > 5
    for name in ("observations", "actions", "rewards", "lengths", "terminated", "final_observations"):
        assert torch.equal(getattr(shards, name), getattr(file, name)), name
    same = {"path": "", "sha256": ""}
    assert replace(shards.origin, **same) == replace(file.origin, **same)
    with pytest.raises(InputError, match="exists and is not overwritten"):
        collect("Hopper-v5", str(experts["Hopper-v5"]), str(path), 1500)


def test_shards_are_there_whole_or_not_at_all(experts, folder, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[collect.__module__], "with_reference_returns", fail)
    with pytest.raises(KeyboardInterrupt):
        collect("Hopper-v5", str(experts["Hopper-v5"]), str(folder / "torn.shards"), 300)
    assert not list(folder.glob("*torn*"))
