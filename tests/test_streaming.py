"""Pairs streamed from a folder of shards: each once per pass, in an order that is a pure function of (seed, pass)."""

import contextlib
import dataclasses
import itertools
import json
import math
import resource

import numpy as np
import pytest
import torch
from conftest import assert_equal_weights, fit, json_to_edit, last_checkpoint, refused, write_pendulum

from lightning_bc.demonstrations import Trajectories, blocks, memory, peek, read
from lightning_bc.demonstrations.batches import Batches
from lightning_bc.demonstrations.blocks import Blocks
from lightning_bc.demonstrations.fitting import Budget, Wanted
from lightning_bc.demonstrations.shards import Shards
from lightning_bc.demonstrations.sources import on_disk
from lightning_bc.demonstrations.streaming import StreamedBatches
from lightning_bc.demonstrations.trajectories import Origin
from lightning_bc.demonstrations.windows import Windows
from lightning_bc.demonstrations.writing import ShardWriter
from lightning_bc.environments import EnvironmentSpaces
from lightning_bc.errors import InputError

CPU = torch.device("cpu")
LENGTHS = (5, 1, 40, 7, 3, 12, 9, 2, 30, 8)                         # 117 steps
STREAMED = "--data.memory 0 --trainer.enable_progress_bar false --rollouts.episodes 2 --data.batch_size 16"


def numbered(lengths=LENGTHS):
    """Episodes whose observations say the step and the episode, and whose actions say minus the step."""
    steps = torch.arange(sum(lengths)).float()
    episodes = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).float()
    return Trajectories(
        torch.stack([steps, episodes], dim=1),
        -steps[:, None],
        torch.tensor(lengths),
        rewards=steps / 10,
        terminated=torch.arange(len(lengths)) % 2 == 0,
        final_observations=torch.arange(2 * len(lengths)).float().view(-1, 2),
        origin=Origin("numbers", environment_id="Pendulum-v1", seed=3, mean_return=2.0, random_returns=(1.0, 2.0)),
    )


def written(folder, made=None, shard_steps=30):
    made = numbered() if made is None else made
    folder.mkdir()
    writer = ShardWriter(folder, shard_steps)
    for episode in range(len(made.lengths)):
        writer.add(made.part(episode, episode + 1))
    writer.close(made.origin)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return Shards.at(written(tmp_path_factory.mktemp("shards") / "numbers.shards"))


def blocks_of(shards, size=8, per_buffer=3, every=1, episodes=None):
    return Blocks(shards, shards.skeleton.lengths[:episodes].numpy(), every, size, per_buffer)


def stream(shards, batch_size=10, seed=0, windows=None, every=1, episodes=None, size=8, per_buffer=3, **options):
    chosen = blocks_of(shards, size, per_buffer, every, episodes)
    return StreamedBatches(chosen, batch_size, seed, device=CPU, windows=windows, **options)


def numbers(batches):
    """The steps in each batch of one iteration."""
    rows = []
    for observations, actions in itertools.chain.from_iterable(batches):
        assert torch.equal(observations[:, :1], -actions)           # a pair stays a pair
        rows.append(observations[:, 0].int().tolist())
    return rows


def flat(rows):
    return list(itertools.chain.from_iterable(rows))


# The folder


def test_a_folder_of_shards_is_read_as_it_was_written(shards):
    assert len(shards.steps) > 2
    read_again, made = read(shards.path), numbered()
    for name in ("observations", "actions", "lengths", "rewards", "terminated", "final_observations"):
        assert torch.equal(getattr(read_again, name), getattr(made, name)), name
    assert dataclasses.replace(read_again.origin, path="numbers", sha256="") == made.origin


def test_steps_are_copied_across_shards(shards):
    for start, stop in [(0, 117), (0, 1), (44, 48), (45, 46), (50, 90), (116, 117)]:
        assert shards.rows(start, stop)[:, 0].tolist() == list(range(start, stop))


def test_a_file_that_is_cut_short_while_it_is_read_is_refused_by_its_name(tmp_path):
    shards = Shards.at(written(tmp_path / "numbers.shards"))
    whole = shards.rows(0, 60)
    file = tmp_path / "numbers.shards" / "00001.rows.npy"
    file.write_bytes(file.read_bytes()[:-8])
    assert len(shards.rows(0, len(whole) // 4)) == len(whole) // 4  # of the first shard
    with pytest.raises(InputError, match=r"00001\.rows\.npy: has been made shorter"):
        shards.rows(0, sum(shards.steps))
    file.unlink()
    with pytest.raises(InputError, match=r"00001\.rows\.npy: cannot be read"):
        shards.rows(0, sum(shards.steps))


def test_statistics_in_the_index_are_those_of_all_steps(shards):
    observations = numbered().observations.double()
    found = shards.moments(0, len(shards.steps), "observations")
    torch.testing.assert_close(found.mean, observations.mean(0))
    torch.testing.assert_close(found.deviation, observations.std(0, correction=0))
    assert found.low.tolist() == [0, 0]
    assert found.high.tolist() == [116, 9]


@pytest.mark.parametrize("damage", ["flip", "header", "truncate", "remove", "index"])
def test_a_damaged_folder_is_refused_by_the_name_of_the_file(damage, tmp_path):
    folder = written(tmp_path / "numbers.shards")
    file = folder / ("shards.json" if damage == "index" else "00001.rows.npy")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    if damage == "header":
        content[content.index(b")")] ^= 1                           # a parenthesis that is never closed
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-10] if damage in ("truncate", "index") else content)
    with pytest.raises(InputError, match=file.name):
        read(folder)


@pytest.mark.parametrize("value", [None, "x", -1, [], {}, 10**6, [["a"]]], ids=str)
@pytest.mark.parametrize("key", ["format", "observation_dim", "has_rewards", "shards", "random_returns", "steps"])
def test_an_index_that_says_something_else_is_read_or_refused_in_words(key, value, tmp_path):
    folder = written(tmp_path / "numbers.shards")
    index = json_to_edit(folder / "shards.json")
    part = index["shards"][1] if key == "steps" else index
    part[key] = value
    (folder / "shards.json").write_text(json.dumps(index))
    for reading in (read, peek):
        with contextlib.suppress(InputError):
            reading(folder)


def test_shards_need_ends_of_episodes(tmp_path):
    unknown = dataclasses.replace(numbered(), knows_episodes=False)
    with pytest.raises(InputError, match="has no episode_lengths"):
        ShardWriter(tmp_path).add(unknown)


# The order


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("batch_size", "size", "per_buffer"), [(10, 8, 3), (4, 1, 5), (7, 200, 1), (50, 8, 1), (200, 5, 4)])
def test_each_pass_serves_each_pair_exactly_once(shards, batch_size, size, per_buffer, world_size):
    ranks = [
        stream(shards, batch_size, size=size, per_buffer=per_buffer, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    alone = Batches(torch.empty(117, 0), torch.empty(117, 0), batch_size, 0, world_size=world_size)
    expected = [len(batch[0]) for batch in itertools.chain.from_iterable(alone)]
    for _ in range(3):
        shares = [numbers(rank) for rank in ranks]
        assert sorted(flat(flat(shares))) == list(range(117))
        assert [len(batch) for batch in shares[0]] == expected      # as large as those from memory


@pytest.mark.parametrize("every", [2, 3, 7])
def test_every_kth_step_of_each_episode_is_served(shards, every):
    made = numbered()
    assert sorted(flat(numbers(stream(shards, every=every)))) == made.rows(every).tolist()
    assert len(stream(shards, every=every)) == math.ceil(len(made.rows(every)) / 10)


def test_only_the_episodes_that_are_not_held_out_are_served(shards):
    assert sorted(flat(numbers(stream(shards, episodes=7)))) == list(range(sum(LENGTHS[:7])))


def test_the_last_episodes_of_a_folder_are_held_out_and_no_others_are_trained_on(shards):
    spaces = EnvironmentSpaces("Pendulum-v1", 2, {}, np.float32([-200]), np.float32([0]), None, None)
    streamed, made = on_disk(str(shards.path), spaces, Wanted(), Budget(validation_fraction=0.3), []), numbered()
    assert torch.equal(streamed.split[1].observations, made.part(7, 10).observations)
    assert torch.equal(streamed.split[1].actions, made.part(7, 10).actions)
    assert streamed.pairs == len(made.part(0, 7))


def test_order_is_a_function_of_seed_and_pass(shards):
    first, again, other = stream(shards, seed=1), stream(shards, seed=1), stream(shards, seed=2)
    passes = [numbers(first) for _ in range(3)]
    assert [numbers(again) for _ in range(3)] == passes
    assert flat(passes[0]) != flat(passes[1]) != flat(passes[2])
    assert flat(numbers(other)) != flat(passes[0])


def test_pairs_that_fit_into_one_buffer_come_in_another_order_in_each_pass(shards):
    whole = stream(shards, per_buffer=100)
    first, second = (flat(numbers(whole)) for _ in range(2))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("position", [0, 1, 5, 11, 12, 13, 30])
def test_a_stream_that_is_resumed_serves_the_same_batches(shards, position):
    whole = stream(shards, num_batches=40)
    expected = numbers(whole)
    before = stream(shards, num_batches=position or 1)
    if position:
        numbers(before)
    after = stream(shards, num_batches=40)
    after.load_state_dict(before.state_dict())
    assert numbers(after) == expected[position:]


def test_blocks_of_a_pass_are_shuffled_within_buffers_and_stay_in_one(shards):
    order = np.array(flat(numbers(stream(shards, batch_size=117, size=8, per_buffer=3))))
    places = np.argsort(order)                                      # of each step
    for block in range(117 // 8):
        assert np.ptp(places[8 * block : 8 * block + 8]) < 24       # three blocks of eight
    assert np.abs(np.diff(places)).max() > 24


def test_pairs_of_one_block_lie_a_third_of_a_buffer_apart(tmp_path):
    shards = Shards.at(written(tmp_path / "many.shards", numbered((100,) * 20), shard_steps=400))
    same, other = [], []
    for seed in range(6):
        places = np.argsort(flat(numbers(stream(shards, 500, seed, size=10, per_buffer=20))))  # 10 buffers of 200
        same.append(np.abs(places[0:2000:10] - places[5:2000:10]).mean())
        other.append(np.abs(places[:1000] - places[1000:]).mean())
    assert np.mean(same) == pytest.approx(200 / 3, rel=0.1)
    assert np.mean(other) == pytest.approx(2000 / 3, rel=0.1)


# Windows


@pytest.mark.parametrize(("history", "horizon"), [(1, 4), (3, 1), (3, 5), (20, 50)])
def test_windows_are_those_from_memory_across_blocks_and_shards(shards, history, horizon):
    nothing, made = torch.empty(0, dtype=torch.int64), numbered()
    in_memory = Windows(made.lengths, history, horizon, CPU)
    served = list(itertools.chain.from_iterable(stream(shards, windows=Windows(nothing, history, horizon, CPU))))
    assert sum(len(batch[0]) for batch in served) == 117
    for observations, actions, within in served:
        rows = -actions[:, 0, 0].long()
        for found, wanted in zip(
            (observations, actions, within), in_memory.cut(made.observations, made.actions, rows), strict=True
        ):
            assert torch.equal(found, wanted)


# In a run


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 7 * 24)
    monkeypatch.setattr(blocks, "BUFFER_BYTES", 28 * 24)


@pytest.fixture
def pendulum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(written(tmp_path / "pendulum.shards", read(write_pendulum(tmp_path / "pendulum.pt"))))


def test_a_streamed_run_that_is_stopped_resumes_bit_by_bit(pendulum, small_blocks, capsys):
    shared = f"{STREAMED} --rollouts.eval_freq 5 --model.schedule constant"
    fit(pendulum, flags=f"{shared} --trainer.max_steps 20 --run through")
    assert "120 pairs of 2.4e-06 GB are streamed from the disk; 0 GB may be taken" in capsys.readouterr().out
    fit(pendulum, flags=f"{shared} --trainer.max_steps 10 --run stopped")
    fit(pendulum, flags=f"{shared} --trainer.max_steps 20 --run stopped")
    assert_equal_weights(last_checkpoint("through"), last_checkpoint("stopped"))
    assert last_checkpoint("through")["point"]["pairs"] == 316      # 110, 110, and 6 batches of the next pass
    shared = f"{shared.replace('memory 0', 'memory 1')} --trainer.max_steps 20"
    fit(pendulum, flags=f"{shared} --run in-memory")
    streamed, in_memory = (last_checkpoint(run)["state_dict"] for run in ("through", "in-memory"))
    for name in ("border.mean", "border.scale"):
        torch.testing.assert_close(streamed[name], in_memory[name])
    source = [last_checkpoint(run)["Demonstrations"]["source"] for run in ("through", "in-memory")]
    assert source[0] == source[1]
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", pendulum, *shared.split(), "--run", "through",
                    "--trainer.max_steps", "30")  # fmt: skip
    assert "was streamed" in error


@pytest.mark.parametrize("strategy", ["Autoregressive --model.binning quantile", "FlowMatching --model.horizon 3"])
def test_strategies_that_look_at_actions_or_windows_learn_from_a_stream(strategy, pendulum, small_blocks):
    model, *flags = strategy.split()
    fit(pendulum, model, f"{STREAMED} {' '.join(flags)} --trainer.max_steps 12 --run mine")
    assert last_checkpoint("mine")["global_step"] == 12


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        ("MSE", "--data.top_fraction 0.5", "--data.top_fraction need all of it in memory"),
        ("MSE", "--data.first_steps 5", "--data.first_steps need all of it in memory"),
        ("MSE", "--data.clip_actions true", "--data.clip_actions need all of it in memory"),
        ("GAIL", "", "GAIL needs all of it in memory"),
    ],
)
def test_what_needs_all_pairs_in_memory_is_refused_in_one_line(model, flags, words, pendulum, capsys):
    flags = ["--data.memory", "0", *flags.split()]
    error = refused(capsys, "fit", "--model", model, "--data.path", pendulum, *flags)
    assert words in error
    assert "raise that, or take less with --data.episodes" in error


def test_what_limits_the_process_limits_its_pairs(monkeypatch):
    unlimited = memory.for_pairs(CPU, 1)
    assert memory.for_pairs(CPU, 4) == unlimited // 4
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**9, 10**9))
    assert memory.for_pairs(CPU, 2) == 0.25 * 10**9 / 2 < unlimited


def test_few_episodes_of_a_large_folder_are_read_into_memory(pendulum, capsys):
    fit(pendulum, flags=f"{STREAMED.replace('memory 0', 'memory 1e-6')} --trainer.max_steps 2 --data.episodes 4 --run few")
    assert "40 pairs of 8e-07 GB are read into memory; 1e-06 GB may be taken (--data.memory)" in capsys.readouterr().out
