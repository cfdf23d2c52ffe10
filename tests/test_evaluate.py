"""The evaluate command: what it prints and writes is what lightning_bc.evaluate says."""

import json
import shutil
import sys
from pathlib import Path

import gymnasium
import pytest
import torch
from conftest import BUDGET, SMALL, actor_state, build_strategy, fit, refused, write_pendulum

import lightning_bc
from lightning_bc.cli import main
from lightning_bc.demonstrations.experts import exported
from lightning_bc.errors import InputError
from lightning_bc.files import write
from lightning_bc.report.evaluations import read_evaluations
from lightning_bc.strategies import MSE, Gaussian


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run, copies of its checkpoints under other names, and an expert."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = fit(write_pendulum(folder / "pendulum.pt"), flags="--trainer.max_steps 4 --rollouts.eval_freq 4 --run mine")
        fit(str(folder / "pendulum.pt"), flags="--trainer.max_steps 2 --rollouts.eval_freq 2 --run short")
    assert run == "mine"
    (folder / "several").mkdir()
    shutil.copy(folder / "checkpoints/mine/last.ckpt", folder / "several/a.ckpt")
    shutil.copy(folder / "checkpoints/short/last.ckpt", folder / "several/b.ckpt")
    write(folder / "actor.pt", actor_state(4, 1, scale=3.0))
    return folder


def test_table_and_file_hold_what_the_evaluator_says(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    output = ["--output", "out/results.json"]
    main(["evaluate", "mine", "several", "actor.pt", "--env", "InvertedPendulum-v5", "--episodes", "3", *output])
    table = capsys.readouterr().out.splitlines()
    references = lightning_bc.load("mine").references               # also those that the expert is measured against
    wanted = ["checkpoints/mine/last.ckpt", "several/b.ckpt", "several/a.ckpt", "actor.pt"]  # b has fewer steps than a
    assert [line.split()[0] for line in table[1:5]] == wanted
    assert table[5] == "3 test-bank episodes each of InvertedPendulum-v5, deterministic actions"
    written = json.loads((folder / "out/results.json").read_text())["evaluations"]
    assert [entry["policy"] for entry in written] == wanted
    assert [entry["step"] for entry in written] == [4, 2, 4, None]
    for name, entry, line in zip(wanted, written, table[1:], strict=False):
        result = lightning_bc.evaluate(lightning_bc.load(name), "InvertedPendulum-v5", 3, references=references)
        assert entry["returns"] == result.returns.tolist()
        assert entry["metrics"]["return_mean"] == result.mean
        assert f" {result.mean:.1f} " in line
        assert f" {result.normalized:.3f} " in line
        assert entry["metrics"]["normalized_return"] == pytest.approx(result.normalized)
        assert entry["references"] == references.as_dict()


def test_a_folder_of_someone_elses_agent_is_a_curve_over_the_steps_in_its_names(folder, monkeypatch, capsys):
    pytest.importorskip("plotly")
    monkeypatch.chdir(folder)
    Path("agents").mkdir()
    for step, scale in ((1000, 3.0), (50, 0.1), (200, 1.0)):
        write(Path(f"agents/rl_model_{step}_steps.pt"), actor_state(4, 1, scale=scale))
    flags = ["--env", "InvertedPendulum-v5", "--episodes", "3", "--output", "agents.json", "--plot", "agents.svg"]
    main(["evaluate", "agents", "mine", *flags])
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in table[1:4]] == [[f"agents/rl_model_{n}_steps.pt", str(n)] for n in (50, 200, 1000)]
    curve, alone = read_evaluations("agents.json")
    assert curve.is_curve
    assert not alone.is_curve
    assert curve.steps.tolist() == [50, 200, 1000]
    wanted = [lightning_bc.evaluate(lightning_bc.load(f"agents/rl_model_{n}_steps.pt"), "InvertedPendulum-v5", 3)
              for n in (50, 200, 1000)]
    assert curve.means.tolist() == [result.mean for result in wanted]
    assert curve.errors == pytest.approx([result.returns.std(ddof=1) / 3**0.5 for result in wanted])
    assert curve.expert_return == lightning_bc.load("mine").references.expert_return
    assert Path("agents.svg").read_text().startswith("<?xml")
    main(["report", "lightning_logs", "--output", "results", "--references", "[agents.json]"])
    assert '"name":"agents"' in Path("results/report.html").read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"evaluations": [{"given": "a"}]}', '{"evaluations": 3}', '{"results": []}'])
def test_other_files_are_no_references_of_a_report(content, folder, monkeypatch, capsys):
    pytest.importorskip("plotly")
    monkeypatch.chdir(folder)
    Path("other.json").write_text(content)
    error = refused(capsys, "report", "lightning_logs", "--output", "other", "--references", "[other.json]")
    assert f"other.json: {'is not a file of evaluations' if content else 'cannot be read as JSON'}" in error
    assert not Path("other").exists()


def test_a_picture_is_refused_before_anything_is_played(folder, monkeypatch, capsys):
    pytest.importorskip("plotly")
    monkeypatch.chdir(folder)
    assert "wanted a file ending in .svg, .png, .pdf" in refused(capsys, "evaluate", "mine", "--plot", "a.bmp")
    error = refused(capsys, "evaluate", "mine", "--plot", "actor.pt")
    assert "exists and is not overwritten. Move it away or choose another --plot" in error


def test_what_is_not_known_is_left_blank(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    main(["evaluate", "actor.pt", "--env", "InvertedPendulum-v5", "--episodes", "3", "--output", "alone.json"])
    assert len(capsys.readouterr().out.splitlines()[1].split()) == 4  # name, return, deviation, steps
    entry = json.loads((folder / "alone.json").read_text())["evaluations"][0]
    assert entry["references"] is entry["metrics"]["normalized_return"] is entry["metrics"]["failed_episodes"] is None


def test_a_run_in_float64_earns_again_what_its_score_says_and_demonstrates_in_float32(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(write_pendulum("pendulum.pt"), "Gaussian", f"{BUDGET} {SMALL} --trainer.precision 64-true")
    main(["evaluate", run, "--episodes", "3", "--output", "again.json"])
    wanted = json.loads(Path("lightning_logs", run, "results.json").read_text())["returns"]
    assert json.loads(Path("again.json").read_text())["evaluations"][0]["returns"] == wanted
    given = build_strategy(Gaussian, 4, [-3.0], [3.0], hidden_sizes=(16, 16))
    for policy in (lightning_bc.load(run), lightning_bc.load(run, given)):
        assert policy.strategy.network.layers[0].weight.dtype == torch.float64
    collect = ["collect", "--env", "InvertedPendulum-v5", "--expert", f"checkpoints/{run}/last.ckpt", "--pairs", "50"]
    main([*collect, "--output", "pairs.pt"])
    assert torch.load("pairs.pt")["actions"].dtype == torch.float32
    main(["export", "--ckpt_path", run, "--output", "policy"])      # whose format holds float32
    assert lightning_bc.load("policy").strategy.network.layers[0].weight.dtype == torch.float32


def test_scales_that_differ_are_told(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    content = torch.load("pendulum.pt") | {"expert_returns": torch.full((100,), 500.0)}
    torch.save(content, "other.pt")
    fit("other.pt", flags="--trainer.max_steps 2 --rollouts.eval_freq 2 --run other")
    capsys.readouterr()
    main(["evaluate", "mine", "other", "short", "--episodes", "2"])
    one, other, _ = capsys.readouterr().out.splitlines()[4:]
    assert one == "normalized, 0 is 5 and 1 is 1000: checkpoints/mine/last.ckpt, checkpoints/short/last.ckpt"
    assert other == "normalized, 0 is 5 and 1 is 500: checkpoints/other/last.ckpt"


def test_the_other_bank_and_samples(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    main(["evaluate", "mine", "--episodes", "2", "--bank", "selection", "--deterministic", "false"])
    assert "2 selection-bank episodes each of InvertedPendulum-v5, sampled actions" in capsys.readouterr().out


def push(observations):
    """A policy of one's own."""
    return 0.1 * observations[:, :1]


def test_the_environment_that_one_says_goes_for_files_and_functions_that_say_none(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    main(["evaluate", "test_evaluate:push", "mine", "actor.pt", "--episodes", "2"])
    table = capsys.readouterr().out.splitlines()
    wanted = ["test_evaluate:push", "checkpoints/mine/last.ckpt", "actor.pt"]
    assert [line.split()[0] for line in table[1:4]] == wanted
    assert table[4] == "2 test-bank episodes each of InvertedPendulum-v5, deterministic actions"


def test_what_cannot_be_evaluated_is_refused_before_anything_is_played(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    error = refused(capsys, "evaluate", "actor.pt")
    assert "actor.pt: does not say of which environment it is. Give --env." in error
    assert "mine/last.ckpt: is an expert for 4-dim" in refused(capsys, "evaluate", "mine", "--env", "Hopper-v5")
    assert "min: no such checkpoint" in refused(capsys, "evaluate", "min")
    assert "exists and is not overwritten" in refused(capsys, "evaluate", "mine", "--output", "actor.pt")
    assert "policies" in refused(capsys, "evaluate")
    assert capsys.readouterr().out == ""


def test_an_exported_policy_whose_environments_module_is_not_imported_names_that_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("stacking.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv\n"
        "gymnasium.register('Stack-v0', InvertedPendulumEnv, max_episode_steps=5)\n"
    )
    Path("policy").mkdir()
    exported.write(Path("policy"), build_strategy(MSE, 4, [-3.0], [3.0]), "stacking:Stack-v0", None, None)
    with pytest.warns(UserWarning, match="acts in stacking:Stack-v0, whose module is not imported"):
        error = refused(capsys, "evaluate", "policy")
    assert "policy: acts in stacking:Stack-v0, whose module is not imported for a file's sake. Give --env stacking:" in error
    shutil.copytree("policy", "other")
    exported.write(Path("other"), build_strategy(MSE, 4, [-3.0], [3.0]), "InvertedPendulum-v5", None, None)
    with pytest.warns(UserWarning, match="whose module is not imported"):
        assert "Give --env stacking:Stack-v0." in refused(capsys, "evaluate", "other", "policy")  # not played in the other's
    with pytest.warns(UserWarning, match="whose module is not imported"):
        policy = lightning_bc.load("policy")
    with pytest.raises(InputError, match=r"policy acts in stacking:Stack-v0, .* Give environment_id='stacking:Stack-v0'"):
        lightning_bc.evaluate(policy)
    assert "stacking" not in sys.modules
    main(["evaluate", "policy", "--env", "stacking:Stack-v0", "--episodes", "2"])
    assert "2 test-bank episodes each of stacking:Stack-v0" in capsys.readouterr().out
    del sys.modules["stacking"], gymnasium.registry["Stack-v0"]
