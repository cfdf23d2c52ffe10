"""``inspect`` says what a file holds, and its last line learns from it; ``convert`` writes what it read."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused, write_pairs

from lightning_bc.cli import main
from lightning_bc.demonstrations import read
from lightning_bc.tools.inspection import fitting_environments

WITH_A_NAME = {"metadata": {"environment_id": "InvertedPendulum-v5"}}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pendulum(path, **changes):
    return write_pairs(path, lengths=(10,) * 12, observation_dim=4, action_dim=1, **{**WITH_A_NAME, **changes})


def inspected(capsys, *arguments):
    capsys.readouterr()
    main(["inspect", *arguments])
    printed = capsys.readouterr()
    assert printed.err == ""                                        # no bar where there is no terminal
    return printed.out


def test_a_file_is_described_and_its_command_learns_from_it(capsys):
    path = pendulum("my data.pt", actions=torch.linspace(-3, 3, 120).unsqueeze(1))
    printed = inspected(capsys, path)
    facts = {line[:18].rstrip(): line[18:] for line in printed.splitlines() if line[:1].strip()}
    assert facts["environment"] == "InvertedPendulum-v5, as the file says"
    assert facts["pairs"] == "120: 4 observation and 1 action dimensions"
    assert facts["episodes"] == "12; steps: min 10, median 10, max 10"
    assert facts["ends"].startswith("11 terminated, 1 cut off (inferred")
    assert facts["outlying values"].startswith("none")
    assert "warning" not in printed
    command = shlex.split(printed.splitlines()[-1])
    assert command[:4] == ["python", "-m", "lightning_bc", "fit"]
    assert "my data.pt" in command
    main(["fit", *command[4:], *["--trainer.max_steps", "2", "--rollouts.episodes", "1"]])


def test_ranges_are_those_of_the_columns(capsys):
    path = pendulum("mine.pt", actions=torch.linspace(-4, 3, 120).unsqueeze(1))
    printed = inspected(capsys, path)
    column = read(path).observations[:, 3]
    row = next(line for line in printed.splitlines() if line.startswith(f"{3:>11}"))
    wanted = (column.min(), column.mean(), column.std(correction=0), column.max())
    assert [float(word) for word in row.split()[1:]] == pytest.approx([float(value) for value in wanted], rel=1e-4)
    action = printed.splitlines()[printed.splitlines().index(row) + 2]
    assert action.split()[5:] == ["-3", "to", "3", "1.7%", "14.2%"]
    assert "warning: actions of 14.2% of the pairs are beyond the bounds. --data.clip_actions true" in printed
    assert printed.splitlines()[-1].endswith("--data.clip_actions true")


def test_what_is_wrong_is_listed(capsys):
    path = pendulum("mine.pt", rewards=torch.cat([torch.ones(90), torch.zeros(30)]), random_returns=torch.zeros(100))
    content = torch.load(path)
    content["observations"][7, 1] = 1e30
    content["observations"][:, 2] = 5.0
    content["observations"][20:30], content["actions"][20:30] = content["observations"][10:20], content["actions"][10:20]
    torch.save(content, path)
    printed = " ".join(inspected(capsys, path).split())
    assert "outlying values observations[7] dimension 1: 1e+30" in printed
    assert "constant observation 2" in printed
    assert "10 of 120 pairs equal an earlier one, among them 1 whole episodes" in printed
    assert "returns mean 7.5, std 4.33013, min 0, max 10" in printed
    assert "25% of the episodes return less than 5, and the median one 10. Where these failed" in printed
    assert "--data.top_fraction 0.75 learns from the others alone" in printed
    assert "observations[7] holds 1e+30 in dimension 1" in printed


def test_episodes_are_poor_by_what_random_actions_return_where_that_is_known(capsys):
    """Returns below zero have no scale of their own: -3 is no failure where random actions return -100."""
    rewards = torch.cat([torch.full((60,), -0.3), torch.full((50,), -0.1), torch.full((10,), -8.0)])
    path = pendulum("mine.pt", rewards=rewards, random_returns=torch.full((100,), -100.0))
    assert "8% of the episodes return less than -51.5" in " ".join(inspected(capsys, path).split())


def test_episodes_beyond_the_time_limit_are_warned_of(capsys):
    path = write_pairs("mine.pt", lengths=(200, 201, 10), observation_dim=3, action_dim=1)
    printed = " ".join(inspected(capsys, path, "--env", "Pendulum-v1").split())
    assert "1 of 3 episodes are longer than the environment's time limit of 200 steps" in printed


def test_ends_at_the_time_limit_are_no_terminal_states(capsys):
    path = write_pairs("mine.pt", lengths=(200, 200), observation_dim=3, action_dim=1, terminated=torch.tensor([True, True]))
    printed = inspected(capsys, path, "--env", "Pendulum-v1")
    assert "0 terminated, 2 cut off (as the file says, but for the time limit)" in printed
    main(["convert", path, "--output", "other.pt", "--env", "Pendulum-v1"])
    assert not read("other.pt").terminated.any()


def test_a_file_that_does_not_say_its_environment_is_compared_with_known_ones(capsys):
    printed = inspected(capsys, write_pairs("mine.pt"))
    assert "does not say; the dimensions fit HalfCheetah-v5, Walker2d-v5" in printed
    assert "warning: the environment is not known" in printed
    assert "take --rollouts.episodes 0 in its place" in " ".join(printed.split())
    assert printed.splitlines()[-1].endswith("--env ENVIRONMENT_ID")
    assert fitting_environments(3, 1) == ["Pendulum-v1"]


def write_several(path):
    """Groups as robomimic's: each episode's observations are a group of two entries; and the entries, side by side."""
    h5py = pytest.importorskip("h5py", reason="the optional extra hdf5 is not installed")
    parts = {"object": np.random.rand(120, 1).astype("f4"), "robot": np.random.rand(120, 3).astype("f4")}
    with h5py.File(path, "w") as opened:
        for episode in range(12):
            rows = slice(10 * episode, 10 * episode + 10)
            opened[f"data/demo_{episode}/actions"] = np.random.rand(10, 1)
            for key, values in parts.items():
                opened[f"data/demo_{episode}/obs/{key}"] = values[rows]
    return path, parts


def test_observations_that_are_several_are_chosen_as_fit_chooses_them(capsys):
    path, parts = write_several("several.hdf5")
    assert "--data.observation_keys object robot" in refused(capsys, "inspect", path)
    flags = ["--env", "InvertedPendulum-v5", "--data.observation_keys", "robot", "object"]
    printed = inspected(capsys, path, *flags)
    assert "observations are robot (3), object (1), side by side in this order" in " ".join(printed.split())
    command = shlex.split(printed.splitlines()[-1])
    main(["fit", *command[4:], *["--trainer.max_steps", "2", "--rollouts.episodes", "1"]])

    assert "--data.observation_keys object robot" in refused(capsys, "convert", path, "--output", "out.pt")
    main(["convert", path, "--output", "out.pt", *flags])
    written = read("out.pt")
    assert torch.equal(written.observations, torch.from_numpy(np.hstack([parts["robot"], parts["object"]])))
    assert written.origin.observation_keys == ("robot", "object")


def test_a_file_alone_has_no_module_imported(capsys, tmp_path, monkeypatch):
    (tmp_path / "canary.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = pendulum("mine.pt", metadata={"environment_id": "canary:Own-v0"})
    printed = inspected(capsys, path)
    assert "canary:Own-v0, as the file says" in printed
    assert "the dimensions fit" not in printed                      # it says what it is


def test_what_cannot_be_read_or_does_not_fit_is_refused(capsys):
    assert "no such demonstration file" in refused(capsys, "inspect", "nothing.pt")
    path = write_pairs("mine.pt")
    assert "observations have 17 dimensions" in refused(capsys, "inspect", path, "--env", "Pendulum-v1")


# convert


def test_what_is_converted_is_what_was_read(capsys):
    made = read(pendulum("mine.pt", rewards=torch.rand(120)))
    np.savez("mine.npz", obs=made.observations, acts=made.actions, rews=made.rewards, episode_lengths=made.lengths)
    main(["convert", "mine.npz", "--output", "data/out.pt", "--env", "InvertedPendulum-v5"])
    printed = capsys.readouterr().out
    assert "120 pairs of 12 episodes" in printed
    assert "every value is as it was." in printed
    written = read("data/out.pt")
    assert written.origin.environment_id == "InvertedPendulum-v5"
    for name in ("observations", "actions", "rewards", "lengths"):
        assert torch.equal(getattr(written, name), getattr(made, name))
    assert written.terminated.tolist() == [True] * 11 + [False]
    assert "exists and is not overwritten" in refused(capsys, "convert", "mine.npz", "--output", "data/out.pt")


@pytest.mark.parametrize("apart", [False, True])
def test_what_float32_rounds_away_is_said(capsys, apart):
    rng = np.random.default_rng(0)
    observations = rng.random((120, 4)) + np.array([0, 4e5, 3.2e7, 0])  # a position in metres on a map
    observations[:, 3] = 1e8                                        # a constant
    columns = {"obs": observations, "acts": rng.random((120, 1))}
    stacked = {name: column.reshape(12, 10, -1) for name, column in columns.items()}
    np.savez("map.npz", **(stacked if apart else columns | {"episode_lengths": np.full(12, 10)}))
    printed = " ".join(inspected(capsys, "map.npz").split())
    words = "observations are rounded away in dimension 1 (first of 2 dimensions)"
    assert f"warning: {words}: its values, up to 400001, have steps of 0.03125" in printed
    main(["convert", "map.npz", "--output", "out.pt"])
    printed = capsys.readouterr().out
    assert "every value is as it was read, in float32." in printed
    assert f"map.npz: {words}" in printed


def test_several_files_become_one(capsys):
    first, second = pendulum("a.pt", rewards=torch.ones(120)), pendulum("b.pt", mean_reward=1000.0)
    main(["convert", first, second, "--output", "both.pt"])
    assert "rewards are left out" in capsys.readouterr().out
    both = read("both.pt")
    assert torch.equal(both.observations, torch.cat([read(first).observations, read(second).observations]))
    assert len(both.lengths) == 24
    assert both.origin.mean_return == pytest.approx((9000 + 1000) / 2)


def test_files_become_a_folder_of_shards_and_that_a_file_again(capsys, monkeypatch):
    monkeypatch.setattr("lightning_bc.demonstrations.writing.SHARD_STEPS", 50)
    first, second = pendulum("a.pt", rewards=torch.ones(120)), pendulum("b.pt", rewards=torch.zeros(120), mean_reward=1000.0)
    main(["convert", first, second, "--output", "both.shards", "--env", "InvertedPendulum-v5"])
    assert "both.shards: 240 pairs of 24 episodes" in capsys.readouterr().out
    assert len(list(Path("both.shards").glob("*.rows.npy"))) > 3
    main(["convert", "both.shards", "--output", "again.shards"])
    main(["convert", "again.shards", "--output", "back.pt"])
    main(["convert", first, second, "--output", "both.pt", "--env", "InvertedPendulum-v5"])
    found, wanted = read("back.pt"), read("both.pt")
    for name in ("observations", "actions", "rewards", "lengths", "terminated"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    assert found.origin.mean_return == wanted.origin.mean_return == pytest.approx((9000 + 1000) / 2)
    without_rewards = pendulum("c.pt")
    assert "Shards need the same of all" in refused(capsys, "convert", first, without_rewards, "--output", "c.shards")
    assert not Path("c.shards").exists()


def test_files_that_do_not_fit_each_other_are_refused(capsys):
    first, other = pendulum("a.pt"), write_pairs("b.pt")
    error = refused(capsys, "convert", first, other, "--output", "both.pt")
    assert "b.pt: observations have the shape (60, 17), those of a.pt (120, 4)" in error
    of_another = pendulum("c.pt", metadata={"environment_id": "InvertedDoublePendulum-v5"})
    assert "c.pt of InvertedDoublePendulum-v5" in refused(capsys, "convert", first, of_another, "--output", "both.pt")
    assert "names a.pt twice" in refused(capsys, "convert", first, first, "--output", "both.pt")
    assert "ends in .pt" in refused(capsys, "convert", first, "--output", "both.npz")
