"""A folder of episodes: one file each, of any format."""

import pickle

import numpy as np
import pytest
import torch
from test_readers_layouts import EPISODES, LENGTHS, TERMINATED, check

from lightning_bc.demonstrations import peek, read
from lightning_bc.demonstrations.readers import exists, stem
from lightning_bc.errors import InputError


def as_npz(path, content):
    np.savez(path.with_suffix(".npz"), **content)


def as_pickle(path, content):
    path.with_suffix(".pkl").write_bytes(pickle.dumps(content))


def as_torch(path, content):
    torch.save({key: torch.as_tensor(value) for key, value in content.items()}, path.with_suffix(".pt"))


def fill(folder, *writers):
    """Episodes 8, 9, 10 and 11, each with the next writer."""
    for number, (observations, actions, rewards) in enumerate(EPISODES):
        ended = np.arange(LENGTHS[number]) == (LENGTHS[number] - 1 if TERMINATED[number] else -1)
        content = {"obs": observations, "acts": actions, "rews": rewards, "terminals": ended}
        writers[number % len(writers)](folder / f"episode_{8 + number}", content)


@pytest.mark.parametrize("writers", [[as_npz], [as_pickle], [as_torch], [as_npz, as_pickle, as_torch]])
def test_each_file_is_an_episode(tmp_path, writers):
    fill(tmp_path, *writers)
    (tmp_path / "README.txt").write_text("not an episode")
    check(read(tmp_path))
    check(read(f"{tmp_path}/"))


def test_a_file_is_one_episode_also_behind_its_success_and_with_noisy_next_observations(tmp_path):
    for number, (observations, actions, rewards) in enumerate(EPISODES):
        succeeded = np.arange(len(actions)) >= len(actions) - 2
        arrays = {"obs": observations[:-1], "next_obs": observations[1:], "acts": actions, "rews": rewards}
        arrays["next_obs"] = arrays["next_obs"] + ~succeeded[:, None]
        as_npz(tmp_path / f"{number}", arrays | {"dones": succeeded})
    check(read(tmp_path), terminated=False)


def test_a_file_of_a_folder_may_mark_its_episodes(tmp_path):
    dones = np.isin(np.arange(10), np.cumsum(LENGTHS) - 1)
    flat = [np.concatenate(parts) for parts in zip(*((obs[:-1], acts, rews) for obs, acts, rews in EPISODES), strict=True)]
    as_npz(tmp_path / "all", dict(zip(("obs", "acts", "rews"), flat, strict=True)) | {"dones": dones})
    check(read(tmp_path), terminated=False, final=False)


def test_files_of_several_episodes(tmp_path):
    for name in "ab":
        as_torch(tmp_path / name, {"obs": torch.zeros(5, 3), "acts": torch.zeros(5, 2), "episode_lengths": [2, 3]})
    assert read(tmp_path).lengths.tolist() == [2, 3, 2, 3]


def test_mean_return_is_that_of_all_episodes(tmp_path):
    for name, mean, lengths in (("a", 1.0, [5]), ("b", 4.0, [2, 3])):
        torch.save(
            {"obs": torch.zeros(5, 3), "acts": torch.zeros(5, 2), "episode_lengths": lengths, "mean_reward": mean},
            tmp_path / f"{name}.pt",
        )
    assert read(tmp_path).mean_return == 3.0


def test_another_file_is_another_content(tmp_path):
    fill(tmp_path, as_npz)
    before = read(tmp_path).origin.sha256
    assert read(tmp_path).origin.sha256 == before
    as_npz(tmp_path / "episode_11", {"obs": EPISODES[0][0], "acts": EPISODES[0][1]})
    assert read(tmp_path).origin.sha256 != before


def test_the_environment_is_that_of_the_files(tmp_path):
    arrays = {"obs": torch.zeros(5, 3), "acts": torch.zeros(5, 2)}
    for name in "ab":
        torch.save(arrays | {"metadata": {"environment_id": "Pendulum-v1"}}, tmp_path / f"{name}.pt")
    assert exists(tmp_path)
    assert peek(tmp_path).environment_id == read(tmp_path).origin.environment_id == "Pendulum-v1"
    torch.save(arrays | {"metadata": {"environment_id": "Reacher-v5"}}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="episodes of Pendulum-v1 and Reacher-v5"):
        read(tmp_path)


def test_a_file_that_does_not_fit_is_named(tmp_path):
    fill(tmp_path, as_npz)
    as_npz(tmp_path / "episode_12", {"obs": np.zeros((3, 4)), "acts": np.zeros((3, 2))})
    with pytest.raises(InputError, match=r"episode_12\.npz: observations have 4 dimensions.*episode_8\.npz have 3"):
        read(tmp_path)


def test_folder_without_episodes_names_the_endings(tmp_path):
    for look in (read, peek):
        with pytest.raises(InputError, match=r"without files of episodes.*\.npz"):
            look(tmp_path)


def test_folder_is_called_by_its_name(tmp_path):
    assert stem("data/mine/") == "mine"
