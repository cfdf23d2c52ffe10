"""Several files in one --data.path: joined file by file, in shares that are exact per pass, and resumed exactly."""

import shutil

import numpy as np
import pytest
import torch
from conftest import INTERACTIVE_BUDGET, fit, last_checkpoint, refused, write_pairs

from lightning_bc.demonstrations import Batches, Demonstrations
from lightning_bc.demonstrations.mixture import Mixture
from lightning_bc.demonstrations.several import error_of, origin_of
from lightning_bc.demonstrations.trajectories import Trajectories
from lightning_bc.errors import InputError
from lightning_bc.runs.results import Results

CPU = torch.device("cpu")
PENDULUM = {"observation_dim": 4, "action_dim": 1, "metadata": {"environment_id": "InvertedPendulum-v5"}}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def two_files(**changes):
    """30 and 90 pairs in ten episodes each; the second file's observations are 100 more."""
    first = write_pairs("a.pt", lengths=(3,) * 10, **PENDULUM)
    second = write_pairs("b.pt", lengths=(9,) * 10, **{**PENDULUM, **changes})
    content = torch.load(second)
    content["observations"] += 100
    torch.save(content, second)
    return [first, second]


def set_up(paths, **options):
    demonstrations = Demonstrations(path=paths, batch_size=8, **options)
    demonstrations.setup("fit")
    return demonstrations


# Shares


def test_a_pass_has_the_quota_of_each_file_and_takes_its_pairs_in_turn():
    mixture = Mixture((10, 90), (0.25, 0.75))
    assert mixture.quotas == [25, 75]
    seen = torch.zeros(100, dtype=torch.int64)
    for number in range(40):
        rows = mixture.rows(number, (0, 0), CPU)
        counts = rows.bincount(minlength=100)
        assert (counts[:10].sum(), counts[10:].sum()) == (25, 75)
        assert counts[:10].max() - counts[:10].min() <= 2
        seen += counts
        assert seen[:10].max() - seen[:10].min() <= 1               # however many passes
        assert seen[10:].max() - seen[10:].min() <= 1
    assert seen[:10].tolist() == [100] * 10


@pytest.mark.parametrize(
    ("sizes", "shares"), [((3, 1000), (0.9, 0.1)), ((7, 7, 7), (0.1, 0.2, 0.7)), ((1, 5), (0.01, 0.99))]
)
def test_quotas_fill_a_pass(sizes, shares):
    mixture = Mixture(sizes, shares)
    assert sum(mixture.quotas) == sum(sizes) == len(mixture.rows(3, (1, 0), CPU))
    assert mixture.quotas == pytest.approx([share * sum(sizes) for share in shares], abs=1)


def test_the_order_is_a_pure_function_of_seed_and_pass():
    columns = torch.arange(100.0).unsqueeze(1), torch.zeros(100, 1)

    def served(seed, position=0):
        batches = Batches(*columns, 7, seed, mixture=Mixture((20, 80), (0.5, 0.5)), num_batches=60)
        batches.load_state_dict({**batches.state_dict(), "position": position})
        return [observations[:, 0].tolist() for group in batches for observations, _ in group]

    assert served(0)[37:] == served(0, position=37)
    assert served(0) != served(1)
    share = sum(value < 20 for batch in served(0) for value in batch) / sum(len(batch) for batch in served(0))
    assert share == pytest.approx(0.5, abs=0.01)


def test_added_pairs_come_once_per_pass_beside_the_mixture():
    batches = Batches(torch.arange(40.0).unsqueeze(1), torch.zeros(40, 1), 10, 0, mixture=Mixture((10, 30), (0.5, 0.5)))
    batches.extend(torch.arange(40.0, 50.0).unsqueeze(1), torch.zeros(10, 1), torch.tensor([10]))
    counts = batches.permutation(0).bincount(minlength=50)
    assert (counts[:10].sum(), counts[10:40].sum()) == (20, 20)
    assert counts[40:].tolist() == [1] * 10


# Files


def test_each_file_is_taken_as_if_it_were_alone():
    paths = two_files()
    both = set_up(paths, validation_fraction=0.2, subsample=2)
    alone = [set_up(path, validation_fraction=0.2, subsample=2) for path in paths]
    assert both.source["training_episodes"] == 16
    assert torch.equal(both.training_observations, torch.cat([one.training_observations for one in alone]))
    for part in (0, 1):
        assert torch.equal(both.split[part].actions, torch.cat([one.split[part].actions for one in alone]))
        assert torch.equal(both.split[part].terminated, torch.cat([one.split[part].terminated for one in alone]))
    assert both.source["files"] == {path: one.source["sha256"] for path, one in zip(paths, alone, strict=True)}
    assert both.references.expert_return == 10_000


def rewarded(*rewards):
    """Episodes of one step."""
    steps = len(rewards)
    return Trajectories(torch.zeros(steps, 1), torch.zeros(steps, 1), torch.ones(steps).long(), torch.tensor(rewards))


def test_the_demonstrators_return_is_the_mean_over_the_episodes_of_all_files():
    files = [rewarded(10.0), rewarded(2.0, 0.0, 4.0)]
    assert origin_of(files).mean_return == 4
    assert origin_of(files[1:]).mean_return == 2
    assert error_of(files) == pytest.approx(np.std([10, 2, 0, 4]) / 2)


def test_the_measured_share_is_the_one_asked_for():
    paths = two_files()
    for shares, wanted in ((None, 0.25), ([0.5, 0.5], 0.5)):
        loader = set_up(paths, validation_fraction=0, shares=shares).train_dataloader()
        rows = torch.cat([observations for group in loader for observations, _ in group])
        assert len(rows) == 120
        assert (rows[:, 2] < 50).float().mean() == wanted


def test_files_that_do_not_fit_are_refused_by_name():
    paths = two_files()
    other = write_pairs("c.pt", observation_dim=5, action_dim=1)
    with pytest.raises(InputError, match=r"c\.pt: observations have the shape \(60, 5\), those of a\.pt \(30, 4\)"):
        set_up([paths[0], other])
    of_another = write_pairs("d.pt", **{**PENDULUM, "metadata": {"environment_id": "Hopper-v5"}})
    with pytest.raises(InputError, match=r"a\.pt of InvertedPendulum-v5|d\.pt of Hopper-v5"):
        set_up([paths[0], of_another])
    with pytest.raises(InputError, match=r"a\.pt twice"):
        set_up([paths[0], paths[0]])
    with pytest.raises(InputError, match="3 shares for 2 files"):
        set_up(paths, shares=[0.2, 0.3, 0.5])
    with pytest.raises(InputError, match=r"sum to 0\.8, wanted 1"):
        set_up(paths, shares=[0.5, 0.3])


def test_strategies_that_draw_pairs_by_themselves_refuse_shares(capsys):
    flags = ["--data.path", f"[{','.join(two_files())}]", "--data.shares", "[0.5,0.5]", *INTERACTIVE_BUDGET.split()]
    assert "--data.shares: GAIL draws pairs by itself" in refused(capsys, "fit", "--model", "GAIL", *flags)


# Runs

FLAGS = "--trainer.max_steps 6 --rollouts.eval_freq 3 --rollouts.episodes 1 --data.batch_size 16 --data.shares [0.5,0.5]"


def test_a_run_of_several_files_records_them_and_goes_on_exactly(capsys):
    paths = two_files()
    content = torch.load("b.pt")
    content["observations"][7, 3] = 1e6
    torch.save(content, "b.pt")
    with pytest.warns(UserWarning, match=r"b\.pt: observations\[7\] holds 1e\+06 in dimension 3"):
        through = fit(f"[{','.join(paths)}]", flags=FLAGS)
    assert through.startswith("MSE-a+1-0-")
    results = Results.read(f"lightning_logs/{through}/results.json")
    assert list(results.data.files) == paths
    assert results.data.path == "a.pt, b.pt"
    stopped = fit(f"[{','.join(paths)}]", flags=FLAGS.replace("max_steps 6", "max_steps 3"))
    for path in paths:                                              # elsewhere they are the same files
        shutil.move(path, f"moved-{path}")
    moved = f"[{','.join(f'moved-{path}' for path in paths)}]"
    fit(moved, flags=f"{FLAGS} --ckpt_path checkpoints/{stopped}/last.ckpt")
    state, wanted = (last_checkpoint(run)["Demonstrations"] for run in (stopped, through))
    assert state["source"]["sha256"] == wanted["source"]["sha256"]
    assert last_checkpoint(stopped)["global_step"] == last_checkpoint(through)["global_step"] == 6
    swapped = f"[{','.join(f'moved-{path}' for path in reversed(paths))}]"
    run = ["fit", "--model", "MSE", "--data.path", swapped, *FLAGS.split(), "--run", stopped]
    assert "data.path" in refused(capsys, *run)
