"""DAgger: what is played, who labels it, and that old and new pairs are learnt from together."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import BUDGET, actor_state, build_strategy, curve, refused

from lightning_bc.callbacks import DAgger
from lightning_bc.callbacks import dagger as dagger_module
from lightning_bc.callbacks.dagger import ExpertOrLearner, Lesson
from lightning_bc.cli import main
from lightning_bc.demonstrations import load_expert
from lightning_bc.demonstrations.batches import Batches
from lightning_bc.environments import make
from lightning_bc.episodes import play
from lightning_bc.players import Memoryless
from lightning_bc.strategies import MSE, strategies


@pytest.fixture
def dagger(tmp_path, data):
    """A configuration with DAgger for InvertedPendulum-v5, and the file of its expert."""

    def write(**options):
        torch.save(actor_state(4, 1, scale=3.0), tmp_path / "expert.pt")
        options = {"expert": str(tmp_path / "expert.pt"), "round_every": 2, "rounds": 2, "episodes": 3} | options
        callback = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": options}
        path = tmp_path / "dagger.yaml"
        path.write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
        return ["--config", str(path), "--data.path", data]

    return write


def collected(run):
    """The pairs that a run's checkpoint holds, (observations, actions), of the episodes whose lengths it holds too."""
    content = torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True)
    observations, actions, lengths = content["Demonstrations"]["collected"]
    assert lengths.sum() == len(observations) == len(actions)
    return observations, actions


def run_of(arguments):
    main(["fit", *arguments, *BUDGET.split(), "--trainer.max_steps", "6"])
    return max(Path("lightning_logs").iterdir(), key=lambda path: path.stat().st_mtime).name


def test_the_expert_labels_what_the_learner_visits(dagger):
    run = run_of(["--model", "MSE", *dagger()])
    observations, actions = collected(run)
    expert = load_expert("expert.pt")
    torch.testing.assert_close(actions, expert(observations).clamp(-3, 3))
    results = json.loads(Path(f"lightning_logs/{run}/results.json").read_text())
    assert results["expert_queries"] == len(observations)
    queries = [value for _, value in curve(run, "time/expert_queries")]
    assert 0 < queries[0] < queries[1] == queries[2] == len(observations)  # a round at optimizer steps 2 and 4


def test_a_strategy_that_answers_by_pairs_answers_by_labelled_ones_too(dagger):
    run = run_of(["--model", "GaussianProcess", *dagger()])
    observations, _ = collected(run)
    weights = torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True)["state_dict"]["network.weights"]
    assert (weights != 0).any(1).sum() == 110 + len(observations)


@pytest.mark.parametrize(("eval_freq", "max_steps"), [(20, 13), (2, 13), (9, 18)])
def test_rounds_take_place_where_they_are_due_however_rare_the_curve(eval_freq, max_steps, dagger, monkeypatch):
    played = []

    def take_note(callback, _):
        played.append(callback.lesson.learner.trainer.global_step)
        callback.rounds_done += 1

    monkeypatch.setattr(DAgger, "_round", take_note)
    flags = ["--model", "MSE", *dagger(round_every=3, rounds=4)]
    main(["fit", *flags, *BUDGET.split(), "--rollouts.eval_freq", f"{eval_freq}", "--trainer.max_steps", f"{max_steps}"])
    assert played == [3, 6, 9, 12]


def test_no_label_is_asked_for_that_nothing_learns_from_until_the_run_is_lengthened(dagger, capsys):
    flags = ["--model", "MSE", *dagger(rounds=3, episodes=1), *BUDGET.split(), "--run", "mine"]
    flags += ["--model.schedule", "constant"]
    main(["fit", *flags, "--trainer.max_steps", "4"])
    out = capsys.readouterr().out
    assert "DAgger: 1 rounds, one per 2 optimizer steps; 2 of rounds=3 would come at the last step" in out
    assert len(torch.load("checkpoints/mine/last.ckpt")["Demonstrations"]["collected"][2]) == 1
    main(["fit", *flags, "--trainer.max_steps", "8"])
    assert "DAgger: 3 rounds, one per 2 optimizer steps\n" in capsys.readouterr().out
    assert len(torch.load("checkpoints/mine/last.ckpt")["Demonstrations"]["collected"][2]) == 3


def test_what_of_the_demonstrations_is_left_out_at_first_is_said(dagger, capsys):
    run_of(["--model", "MSE", *dagger(rounds=1), "--data.episodes", "2"])
    assert "learns from 20 of the 120 pairs (2 episodes of 12; 0 held out)" in capsys.readouterr().out


def test_with_beta_one_the_expert_plays(dagger):
    observations, _ = collected(run_of(["--model", "MSE", *dagger(beta=1.0, rounds=1)]))
    first = int(np.random.SeedSequence((0, 2)).generate_state(1)[0]) % 500_000_000
    expert = load_expert("expert.pt")
    alone = play(partial(expert, deterministic=True), make("InvertedPendulum-v5", 3), range(first, first + 3), record=True)
    torch.testing.assert_close(observations, torch.from_numpy(alone.observations))


def test_rounds_play_new_episodes(dagger):
    observations, _ = collected(run_of(["--model", "MSE", *dagger()]))
    assert len(observations.unique(dim=0)) == len(observations)


def test_every_pass_after_an_addition_holds_old_and_new_pairs_once():
    observations = torch.arange(10.0).unsqueeze(1)
    batches = Batches(observations, observations, batch_size=4, seed=0, num_batches=100)
    stream = iter(batches)
    before = torch.cat([next(stream)[0][0] for _ in range(2)]).squeeze(1)
    assert len(before.unique()) == 8
    new = torch.arange(10.0, 17.0).unsqueeze(1)
    batches.extend(new, new, torch.tensor([7]))
    state = batches.state_dict()
    passes = [torch.cat([next(stream)[0][0] for _ in range(5)]).squeeze(1) for _ in range(2)]
    for one in passes:
        assert one.sort().values.tolist() == list(range(17))
    assert passes[0].tolist() != passes[1].tolist()
    assert batches.pairs_until(2) == 8
    assert batches.pairs_until(12) == 8 + 2 * 17

    whole = torch.cat([observations, new])
    resumed = Batches(whole, whole, batch_size=4, seed=0, num_batches=100)
    resumed.load_state_dict(state)
    again = torch.cat([group[0][0] for group, _ in zip(resumed, range(10), strict=False)]).squeeze(1)
    assert again.tolist() == torch.cat(passes).tolist()


# A round, without a run


def pendulum(**options):
    return build_strategy(MSE, 4, [-3.0], [3.0], **options)


@pytest.fixture
def between(monkeypatch):
    """A callback that can play rounds without a Trainer."""
    monkeypatch.setattr(MSE, "trainer", None, raising=False)
    monkeypatch.setattr(dagger_module, "honour_signals", lambda *_: None)
    monkeypatch.setattr(dagger_module, "on_rank_zero", lambda trainer, call: call())

    def callback_of(learner, expert, **options):
        callback = DAgger("expert.pt", **options)
        callback.lesson = Lesson(learner, expert, make("InvertedPendulum-v5", 2))
        return callback

    return callback_of


def test_an_expert_that_plays_chunks_is_asked_anew_for_each_label(between):
    expert = pendulum(horizon=2, chunk=2)
    expert.network.layers[-1].bias.data = torch.tensor([-1.0, 1.0])  # its second action is another one
    played = between(pendulum(), expert)._play(range(2))
    torch.testing.assert_close(played.actions, expert(played.observations.unsqueeze(1))[:, 0].detach())


def test_the_learner_plays_as_it_acts_and_after_a_round_each_module_does_what_it_did(between):
    learner, seen = pendulum(), []
    learner.network.layers.insert(1, torch.nn.Dropout(0.5))
    learner.train().network.layers[1].eval()                        # a layer that is never to train
    learner.network.register_forward_hook(lambda module, *_: seen.append(module.training))
    between(learner, pendulum())._play(range(2))
    assert seen
    assert not any(seen)
    assert learner.training
    assert not learner.network.layers[1].training


def test_the_experts_share_of_round_i_is_beta_to_the_i(between, monkeypatch):
    betas = []

    def noted(expert, learner, beta):
        betas.append(beta)
        return ExpertOrLearner(expert, learner, beta)

    monkeypatch.setattr(dagger_module, "ExpertOrLearner", noted)
    callback = between(pendulum(), pendulum(), beta=0.5)
    for _ in range(3):
        callback._round(SimpleNamespace(seed=0, extend=lambda *_: None))
    assert betas == [0.5, 0.25, 0.125]


def test_each_step_is_the_experts_with_its_share():
    expert, learner = (Memoryless(torch.full((10_000, 1), action).expand_as) for action in (1.0, 0.0))
    torch.manual_seed(0)
    actions = ExpertOrLearner(expert, learner, beta=0.8).act(torch.zeros(10_000, 1), torch.arange(10_000))
    assert actions.mean().item() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("expert", ["teacher", "checkpoints/teacher", "lightning_logs/teacher"])
def test_a_run_by_its_name_or_folder_is_an_expert(expert, dagger, data):
    main(["fit", "--model", "MSE", "--data.path", data, *BUDGET.split(), "--run", "teacher"])
    observations, actions = collected(run_of(["--model", "MSE", *dagger(expert=expert)]))
    labels = load_expert("checkpoints/teacher/last.ckpt")(observations)
    torch.testing.assert_close(actions, labels.clamp(-3, 3), rtol=1e-5, atol=1e-5)


# Refusals


def test_an_expert_of_another_environment_is_refused(dagger, tmp_path, capsys):
    torch.save(actor_state(17, 6), tmp_path / "other.pt")
    arguments = dagger(expert=str(tmp_path / "other.pt"))
    error = refused(capsys, "fit", "--model", "MSE", *arguments, *BUDGET.split())
    assert "other.pt: is an expert for 17-dimensional observations" in error
    assert not Path("lightning_logs").exists()


def test_dagger_without_an_expert_is_refused(dagger, tmp_path, capsys):
    arguments = dagger()
    config = yaml.safe_load((tmp_path / "dagger.yaml").read_text())
    del config["trainer"]["callbacks+"][0]["init_args"]["expert"]
    (tmp_path / "dagger.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--model", "MSE", *arguments, *BUDGET.split()])
    assert exit_info.value.code == 2
    assert "expert" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("rounds", 0), ("round_every", 0), ("episodes", 0), ("beta", 1.5)])
def test_settings_out_of_range_are_refused(dagger, capsys, option, value):
    error = refused(capsys, "fit", "--model", "MSE", *dagger(**{option: value}), *BUDGET.split())
    assert option in error
    assert f"{value}: wanted" in error


def test_strategies_that_act_themselves_are_refused(dagger, capsys):
    name = next(name for name in strategies() if name == "SAC")
    error = refused(capsys, "fit", "--model", name, *dagger())
    assert "DAgger works under strategies that learn from demonstrations" in error


def test_a_run_does_not_go_on_with_another_expert(dagger, capsys):
    arguments = ["--model", "MSE", *dagger()]
    run = run_of(arguments)
    expert = torch.load("expert.pt", weights_only=True)
    torch.save({name: 0.5 * value for name, value in expert.items()}, "expert.pt")
    longer = ["fit", *arguments, *BUDGET.split(), "--run", run, "--trainer.max_steps", "8"]
    assert "is another one than that which this run began with" in refused(capsys, *longer)
    torch.save(expert, "expert.pt")
    main(longer)
