"""No number that is not one: what stops a run, what it leaves, and what reports make of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BUDGET, INTERACTIVE_BUDGET, build_strategy, fit, json_to_edit, refused, write_pendulum
from test_report import BENCHMARK, CONFIG

from lightning_bc.cli import main
from lightning_bc.environments import make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.errors import DivergedError, InputError, NotFiniteError
from lightning_bc.references import References
from lightning_bc.report.chart import make_charts
from lightning_bc.runs.held_out import HeldOutResults, read_results
from lightning_bc.runs.plan import Fit
from lightning_bc.runs.records import read_records
from lightning_bc.runs.results import Results
from lightning_bc.runs.store import line_of
from lightning_bc.strategies import strategies

OFFLINE = [name for name, strategy in strategies().items() if not strategy.learns_by_acting]
ONLINE = [name for name, strategy in strategies().items() if strategy.learns_by_acting]


def diverges(capsys, strategy, data, flags):
    """Train a run that must stop, and return what it printed as its error."""
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--model", strategy, "--data.path", data, "--run", "mine", *flags.split()])
    assert exit_info.value.code == 1
    return capsys.readouterr().err


def is_finite(checkpoint):
    weights = torch.load(checkpoint, weights_only=True)["state_dict"].values()
    return all(weight.isfinite().all() for weight in weights)


@pytest.mark.parametrize("lr", ["1e30", pytest.param("1e6", marks=pytest.mark.slow)])
@pytest.mark.parametrize("strategy", OFFLINE)
def test_a_learning_rate_that_is_too_high_stops_the_run_and_is_named(data, capsys, strategy, lr):
    error = diverges(capsys, strategy, data, f"{BUDGET} --rollouts.eval_freq 1000 --model.optimizer.lr {lr}")
    assert "error: diverged at optimizer step " in error
    assert "the loss is " in error
    assert "Traceback" not in error
    results = Results.read("lightning_logs/mine/results.json")
    assert results.diverged.startswith("diverged at optimizer step ")
    assert np.isnan(results.score)
    assert results.failed_episodes == 1
    if not Path("checkpoints/mine/last.ckpt").exists():             # it is named by itself
        assert "It ended without one; how, says lightning_logs/mine/results.json" in refused(capsys, "fit", "--run", "mine")


@pytest.mark.parametrize(("place", "name"), [(0, "observation"), (1, "reward")])
def test_numbers_of_the_environment_that_are_not_finite_are_no_divergence(data, capsys, monkeypatch, place, name):
    def made(*given):
        environments = make(*given)
        step = environments.step

        def failing(actions):
            answer = list(step(actions))
            answer[place] = answer[place] * np.nan
            return tuple(answer)

        environments.step = failing
        return environments

    monkeypatch.setattr("lightning_bc.strategies.online.loop.make", made)
    flags = f"--model GAIL --data.path {data} --run mine {INTERACTIVE_BUDGET} --model.total_environment_steps 400"
    flags += " --trainer.enable_progress_bar false"
    assert f"the environment's {name} is nan, at optimizer step 0. Have it give" in refused(capsys, "fit", *flags.split())
    assert not Path("lightning_logs/mine/results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lr", ["1e30", "1e6"])
@pytest.mark.parametrize("strategy", ONLINE)
def test_strategies_that_act_while_they_learn_stop_too_or_end_with_numbers(data, capsys, strategy, lr):
    """At 1e6 their losses are huge, and finite."""
    flags = f"{INTERACTIVE_BUDGET} --rollouts.eval_freq 1000 --model.total_environment_steps 400 --model.optimizer.lr {lr}"
    status = 0
    try:
        main(["fit", "--model", strategy, "--data.path", data, "--run", "mine", *flags.split()])
    except SystemExit as end:
        status = end.code
    results = Results.read("lightning_logs/mine/results.json")
    if status == 0:
        assert lr == "1e6"
        assert is_finite("checkpoints/mine/last.ckpt")
        assert np.isfinite(results.score)
    else:
        assert status == 1
        assert "error: diverged at optimizer step " in capsys.readouterr().err
        assert results.diverged


def test_the_last_checkpoint_is_the_last_finite_state_and_the_run_is_not_taken_for_finished(data, capsys):
    flags = f"{BUDGET} --rollouts.eval_freq 1 --trainer.max_steps 400 --model.optimizer.lr 1e18"
    error = diverges(capsys, "MSE", data, flags)
    if Path("checkpoints/mine/last.ckpt").is_file():
        assert is_finite("checkpoints/mine/last.ckpt")
    assert "diverged" in error
    diverges(capsys, "MSE", data, flags)


def test_what_the_optimizer_remembers_is_looked_at_before_it_is_saved(data, capsys, monkeypatch):
    """A gradient of 1e25 squares to infinity: Adam's weights then stay finite, and never move again."""
    loss = strategies()["MSE"].loss
    monkeypatch.setattr(strategies()["MSE"], "loss", lambda *given: (1e25 * loss(*given)[0], {}))
    error = diverges(capsys, "MSE", data, BUDGET)
    assert "diverged at optimizer step 2: what the optimizer remembers of gradients is inf" in error
    assert not Path("checkpoints/mine").exists()


def test_weights_that_are_not_finite_are_not_played_nor_saved(data, capsys, monkeypatch):
    strategy = strategies()["MSE"]
    step = strategy.training_step

    def spoilt(self, *given):
        step(self, *given)
        with torch.no_grad():
            next(self.parameters()).fill_(torch.nan)

    monkeypatch.setattr(strategy, "training_step", spoilt)
    error = diverges(capsys, "MSE", data, BUDGET)
    assert "diverged at optimizer step 2: the policy's action is [nan], in step 1 of the episode with seed 1" in error
    assert not Path("checkpoints/mine").exists()


def test_without_a_simulator_a_run_that_diverges_says_so_too_and_a_report_shows_it(data, capsys):
    flags = f"{BUDGET} --rollouts.episodes 0 --model.optimizer.lr 1e30"
    assert "error: diverged at optimizer step " in diverges(capsys, "MSE", data, flags)
    results = read_results(Path("lightning_logs/mine/results.json"))
    assert isinstance(results, HeldOutResults)
    assert results.diverged.startswith("diverged at optimizer step ")
    assert results.held_out == {}
    pytest.importorskip("plotly", reason="the optional extra report is not installed")
    main(["report", "lightning_logs", "--output", "out"])
    words = Path("out/report.md").read_text()
    assert "1 of 1 seed diverged" in words
    assert "nan" not in words
    fit = Fit(("--model", "MSE"), 0)
    assert np.isnan(line_of(fit, results)["score"])


def test_a_test_of_the_last_checkpoint_does_not_hide_that_the_run_diverged(data, capsys):
    run = fit(data)
    path = Path(f"lightning_logs/{run}/results.json")
    path.write_text(json.dumps(json_to_edit(path) | {"diverged": "diverged at step 9: made up.", "score": None}))
    main(["test", "--run", run])
    assert "stays as it is" in capsys.readouterr().out
    assert Results.read(path).diverged


def test_playing_names_the_answer_and_the_environment(tmp_path):
    environments = make("InvertedPendulum-v5", 2)

    def policy(observations):
        return torch.where(observations[:, :1] > 10, 0.0, torch.tensor([[0.0], [torch.inf]])[: len(observations)])

    with pytest.raises(NotFiniteError, match=r"the policy's action is \[inf\], in step 1 of .* seed 1000000001"):
        play(policy, environments, SELECTION_BANK.seeds(2))
    step = environments.step

    def unstable(*given):
        observations, *rest = step(*given)
        observations[0] = np.nan
        return observations, *rest

    environments.step = unstable
    with pytest.raises(InputError, match=r"the environment's observation is \[nan, .* in step 2 "):
        play(lambda observations: 0 * observations[:, :1], environments, SELECTION_BANK.seeds(2))
    environments.step = lambda *given: (*(answer := step(*given))[:1], answer[1] * np.nan, *answer[2:])
    with pytest.raises(InputError, match="the return of the episode with seed 1000000000 is nan"):
        play(lambda observations: 0 * observations[:, :1], environments, SELECTION_BANK.seeds(2))
    environments.close()


def test_an_expert_that_answers_nan_is_refused_by_collect_and_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("nan_expert.py").write_text(
        "import numpy\ncalls = []\n\n\ndef act(observations):\n    calls.append(1)\n"
        "    return numpy.full((len(observations), 1), numpy.nan if len(calls) > 2 else 0.0)\n"
    )
    flags = ["--env", "InvertedPendulum-v5", "--expert", "nan_expert:act", "--pairs", "100", "--output", "out.pt"]
    with pytest.raises(SystemExit, match="2"):
        main(["collect", *flags])
    assert "wanted finite numbers" in capsys.readouterr().err
    assert not Path("out.pt").exists()
    assert "wanted finite numbers" in refused(capsys, "evaluate", "nan_expert:act", "--env", "InvertedPendulum-v5")


def test_the_first_of_the_losses_is_named():
    good, bad = torch.tensor(1.0), torch.tensor(torch.nan)
    strategy = build_strategy(strategies()["MSE"])
    strategy.losses = [(1, "a", good), (2, "b", good)]
    strategy.refuse_divergence()
    strategy.losses = [(1, "a", good), (2, "b", bad), (3, "a", bad)]
    with pytest.raises(DivergedError, match="diverged at optimizer step 2: b is nan") as error:
        strategy.refuse_divergence()
    assert error.value.step == 2


def test_returns_that_are_not_finite_count_as_failed():
    returns = np.array([np.nan, np.inf, -np.inf, 40.0, 60.0])
    assert References(0.0, 100.0, "made up").failed(returns).tolist() == [True, True, True, True, False]


def test_a_report_counts_a_seed_that_diverged_and_gives_no_mean_of_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    well = {"failed_episodes": 0.0}
    gone = {"score": None, "normalized": None, "failed_episodes": 1.0, "returns": [], "diverged": "made up"}
    for name, seed, changes in (("a0", 0, well), ("a1", 1, gone), ("b0", 0, well), ("b1", 1, well)):
        config = json.loads(json.dumps(CONFIG))
        config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e-3 if name[0] == "a" else 1e-4
        BENCHMARK["write_run"](Path("lightning_logs") / name, config, seed, 5, 0.9, **changes)
    (chart,) = make_charts(read_records(Path("lightning_logs"))[0])
    whole, spoilt = chart.methods                                   # last, whatever its other seed reached
    assert (whole.diverged, spoilt.diverged) == (0, 1)
    cells = chart.cells(spoilt)
    assert cells[5] == "diverged (2 seeds)"
    assert cells[6] == cells[7] == "diverged"
    assert cells[8] == "100 of 200"
    assert "1 of 2 seeds diverged" in cells[-1]
    main(["report", "lightning_logs", "--output", "out"])
    assert "nan" not in Path("out/report.md").read_text()


def test_data_that_hold_what_is_not_finite_never_reach_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_pendulum("a.pt")
    content = torch.load(path, weights_only=True)
    content["observations"][7, 1] = torch.inf
    torch.save(content, path)
    assert "a.pt: observations" in refused(capsys, "fit", "--model", "MSE", "--data.path", path)
