"""Exported folders: they act as the policy does, in onnxruntime and rebuilt, and what they describe chooses no code."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import BUDGET, build_strategy, fit, json_to_edit, refused, write_pendulum
from safetensors.numpy import load_file

import lightning_bc
from lightning_bc.api import Policy
from lightning_bc.cli import main
from lightning_bc.demonstrations.experts import exported
from lightning_bc.errors import InputError
from lightning_bc.networks import MLP
from lightning_bc.strategies import VAE, Diffusion, GaussianMixture, strategies
from lightning_bc.tools import onnx_graphs
from lightning_bc.tools.folder_readme import readme
from lightning_bc.tools.onnx_graphs import Act, Drawn

WINDOWS = {"history": 2, "horizon": 4, "chunk": 3}
OURS = {name: cls for name, cls in strategies().items() if cls.__module__.startswith("lightning_bc.")}
every_strategy = pytest.mark.parametrize("cls", OURS.values(), ids=OURS)


def trained(cls, **options):
    """With weights, statistics and bounds that no shortcut would survive."""
    strategy = build_strategy(cls, hidden_sizes=(16, 12), **options)
    with torch.no_grad():
        for parameter in strategy.parameters():
            parameter += 0.15 * torch.randn_like(parameter)
    strategy.border.fit(torch.tensor([5.0, -1.0, 0.3]) + torch.tensor([3.0, 0.2, 1.0]) * torch.randn(200, 3))
    return strategy.eval().requires_grad_(False)


def acts(strategy, deterministic=True, batch=50):
    torch.manual_seed(7)
    with torch.inference_mode():
        return strategy(onnx_graphs.random_observations(strategy, batch), deterministic=deterministic)


@every_strategy
def test_a_policy_that_is_read_back_acts_bit_by_bit_as_it_did(cls, tmp_path):
    strategy = trained(cls)
    exported.write(tmp_path, strategy, None, None, None)
    before = torch.get_rng_state()
    again = exported.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    for deterministic in (True, False):
        assert torch.equal(acts(again, deterministic), acts(strategy, deterministic))
    assert type(again) is cls
    assert exported.write(tmp_path, again, None, None, None)["weights_sha256"] == exported.read(tmp_path)["weights_sha256"]


@every_strategy
def test_what_is_not_exported_does_not_act(cls):
    strategy = trained(cls)
    wanted = [acts(strategy, deterministic) for deterministic in (True, False)]
    kept = {value.data_ptr() for value in strategy.acting_weights().values()}
    for value in strategy.state_dict().values():
        if value.data_ptr() not in kept:
            value.fill_(torch.nan)
    for deterministic, was in zip((True, False), wanted, strict=True):
        assert torch.equal(acts(strategy, deterministic), was)


@pytest.mark.parametrize("cls", [VAE, Diffusion], ids=["VAE", "Diffusion"])
def test_given_the_numbers_that_torch_would_draw_the_sample_is_the_same(cls):
    strategy, drawn = trained(cls), []
    observations = onnx_graphs.random_observations(strategy, 50)

    def record(size):
        drawn.append(torch.randn(50, size))
        return drawn[-1]

    torch.manual_seed(7)
    with torch.inference_mode(), Drawn(record):
        strategy(observations, deterministic=False)
    noise = torch.cat(drawn, dim=1)
    assert noise.shape == (50, onnx_graphs.noise_dim(strategy))
    with torch.inference_mode():
        actions = Act(strategy, deterministic=False)(observations, noise)
    torch.testing.assert_close(actions, acts(strategy, deterministic=False), rtol=0, atol=1e-6)


def test_categories_are_chosen_with_their_probabilities():
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(100_000, 4)
    with Drawn(lambda size: torch.randn(100_000, size, generator=torch.Generator().manual_seed(0))):
        chosen = torch.multinomial(probabilities, 1)
    assert chosen.shape == (100_000, 1)
    shares = torch.bincount(chosen.flatten(), minlength=4) / 100_000
    torch.testing.assert_close(shares, probabilities[0], rtol=0, atol=0.006)    # four standard errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A diffusion policy with history and chunks, exported by the command; and its checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("exported"))
        flags = BUDGET + " --model.act_steps 2 --model.network.hidden_sizes [16,12]"
        flags += "".join(f" --model.{name} {size}" for name, size in WINDOWS.items())
        checkpoint = Path(f"checkpoints/{fit(write_pendulum('pendulum.pt'), 'Diffusion', flags)}/last.ckpt")
        main(["export", "--ckpt_path", str(checkpoint), "--output", "policy"])
        return Path("policy").absolute(), checkpoint.absolute()


@pytest.fixture(scope="module")
def graph(folder, tmp_path_factory):
    """The same folder with its deterministic graph; that of samples takes as long again."""
    path = tmp_path_factory.mktemp("graph") / "policy"
    shutil.copytree(folder[0], path)
    strategy, description = lightning_bc.load(path).strategy, exported.read(path)
    strategy.stochastic = False
    description["onnx"] = onnx_graphs.write(path, strategy)
    exported.write_description(path, description)
    (path / "README.md").write_text(readme(strategy, description, []))
    return path


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


def test_the_graph_acts_as_the_policy_in_batches_of_any_size(folder, graph):
    policy = lightning_bc.load(folder[1])
    for batch in (1, 33):
        observations = onnx_graphs.random_observations(policy.strategy, batch)
        with torch.inference_mode():
            wanted = policy.strategy(observations)
        assert wanted.shape == (batch, 3, 1)
        np.testing.assert_allclose(run(graph / "policy.onnx", observations=observations), wanted, rtol=0, atol=1e-5)
    words = onnx_graphs.compare_episodes(graph, policy, "InvertedPendulum-v5", 5)
    assert "5 of 5 returns are equal, the largest difference is 0" in words
    assert b"lightning_bc/" not in (graph / "policy.onnx").read_bytes()  # no traces of where it was made


@pytest.mark.parametrize("episodes", [1, 10])
def test_returns_of_few_episodes_are_shown_and_not_judged(graph, monkeypatch, episodes):
    """A single one of a chaotic environment has any difference, and no standard error that could excuse it."""
    policy = lightning_bc.load(graph)
    other = torch.full((1, 3, 1), 3.0)
    monkeypatch.setattr(onnx_graphs.GraphActor, "__call__", lambda self, seen: other.expand(len(seen), -1, -1))
    if episodes == 1:
        assert "0 of 1 returns are equal" in onnx_graphs.compare_episodes(graph, policy, "InvertedPendulum-v5", 1)
    else:
        with pytest.raises(InputError, match="Nothing was exported"):
            onnx_graphs.compare_episodes(graph, policy, "InvertedPendulum-v5", episodes)


def test_the_folder_says_what_it_is(folder):
    description = json.loads((folder[0] / "policy.json").read_text())
    assert {name: description[name] for name in WINDOWS} == WINDOWS
    assert description["environment_id"] == "InvertedPendulum-v5"
    policy, checkpoint = lightning_bc.load(folder[0]), lightning_bc.load(folder[1])
    assert (description["action_low"], description["action_high"]) == checkpoint.strategy.border.reach
    assert (policy.environment_id, policy.step, policy.references) == ("InvertedPendulum-v5", 4, checkpoint.references)
    assert {path.name for path in folder[0].iterdir()} == {"README.md", "policy.json", "policy.safetensors"}


@pytest.mark.parametrize("kind", ["onnx", "weights"])
def test_the_readmes_program_plays_as_the_policy_without_this_package(kind, folder, graph, tmp_path):
    if kind == "onnx":
        path, policy, begin, act = graph, lightning_bc.load(folder[1]), "begin()", "act(observation)"
    else:
        network = functools.partial(MLP, hidden_sizes=(16, 12), input_scale=0.5)
        path, strategy = tmp_path, trained(strategies()["SAC"], network=network)
        (path / "README.md").write_text(readme(strategy, exported.write(path, strategy, None, None, None), []))
        policy, begin, act = Policy(strategy), "", "act_by_weights(observation[None])[0]"
    text = (path / "README.md").read_text()
    script = "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    episodes = np.random.default_rng(0).normal(size=(2, 8, policy.observation_dim)).astype(np.float32)
    np.save(tmp_path / "episodes.npy", episodes)
    script += (
        f"\nimport sys\nactions = []\nfor episode in np.load({str(tmp_path / 'episodes.npy')!r}):\n    {begin or 'pass'}\n"
        f"    actions.append([{act} for observation in episode])\n"
        "assert not {'lightning_bc', 'lightning', 'torch'} & set(sys.modules)\n"
        f"np.save({str(tmp_path / 'actions.npy')!r}, actions)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=path, check=True, timeout=60)
    wanted = []
    for episode in episodes:
        policy.reset()
        wanted.append([policy(observation) for observation in episode])
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), wanted, rtol=0, atol=1e-5)


def test_commands_take_the_folder_as_a_policy(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["evaluate", str(folder[0]), str(folder[1]), "--episodes", "5", "--output", "both.json"])
    first, second = json.loads(Path("both.json").read_text())["evaluations"]
    assert (first["returns"], first["references"]) == (second["returns"], second["references"])
    main(["collect", "--env", "InvertedPendulum-v5", "--expert", str(folder[0]), "--pairs", "20", "--output", "pairs.pt"])
    assert lightning_bc.read_demonstrations("pairs.pt").origin.expert_sha256 == first["sha256"]


def test_nothing_is_overwritten_and_nothing_is_left_of_a_refused_export(folder, graph, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    export = ["export", "--ckpt_path", str(folder[1]), "--output"]
    assert "exists and is not overwritten" in refused(capsys, *export, "mine")
    assert "--onnx true" in refused(capsys, *export, "new", "--format", "cleanrl", "--onnx", "true")
    content = (graph / "policy.onnx").read_bytes()
    monkeypatch.setattr(onnx_graphs, "_write", lambda path, act, inputs: path.write_bytes(content))
    monkeypatch.setattr(onnx_graphs, "_run", lambda session, inputs: np.zeros((len(inputs[0]), 3, 1), np.float32))
    error = refused(capsys, *export, "new", "--onnx", "true")
    assert re.search(r"policy\.onnx: in onnxruntime its actions are up to [\d.]+ from the policy's", error)
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


def test_rows_that_rounding_decides_are_told_from_wrong_ones():
    strategy = trained(GaussianMixture)
    strategy.network.layers[-1].weight[::3] = 0                     # the logits of the weights: two are equal
    strategy.network.layers[-1].bias[::3] = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    act = Act(strategy, True)
    inputs = (onnx_graphs.random_observations(strategy, 20),)
    with torch.inference_mode():
        assert onnx_graphs._are_ties(act, inputs, act(*inputs)).all()
        strategy.network.layers[-1].bias[3] = 0.9
        assert not onnx_graphs._are_ties(act, inputs, act(*inputs)).any()


def write_canary(folder, monkeypatch):
    """A module that can be imported, and leaves a file ``imported`` behind when it is."""
    monkeypatch.syspath_prepend(folder)
    program = f"from pathlib import Path\nPath({str(folder / 'imported')!r}).touch()\ndef run(*sizes): ...\n"
    (folder / "canary.py").write_text(program)


CHANGES = {
    "unknown strategy": ({"strategy": "os.system"}, "strategy os.system: is not known. Known: ACT, "),
    "abstract strategy": ({"strategy": "OfflineStrategy"}, "is not known"),
    "unknown network": (
        {"network": {"name": "canary.run", "settings": {}}},
        "One of your own is known in Python, once its module is imported.",
    ),
    "network with a class path": ({"network": {"class_path": "canary.run", "init_args": {}}}, "network"),
    "unknown key": ({"import": "canary"}, "unknown: import"),
    "unknown setting": ({"hyper_parameters": {"optimizer": "canary.run"}}, "unknown: optimizer"),
    "import path": ({"hyper_parameters": {"prediction": "canary.run"}}, "canary.run"),
    "setting out of bounds": ({"hyper_parameters": {"steps": 0}}, "steps"),
    "setting of no choice": ({"hyper_parameters": {"prediction": "noise"}}, "prediction"),
    "nested setting": ({"hyper_parameters": {"steps": {"class_path": "canary.run"}}}, "hyper_parameters"),
    "other sizes": ({"chunk": 2}, "chunk 2: by hyper_parameters it is 3"),
    "fewer numbers": ({"observation_mean": [0.0]}, "observation_mean holds 1 numbers"),
    "no number": ({"observation_mean": [0.0, 0.0, 0.0, float("nan")]}, "NaN"),
    "scale of zero": ({"observation_scale": [0.0] * 4}, "observation_scale"),
    "other network": ({"network": {"name": "MLP", "settings": {"hidden_sizes": [16, 13]}}}, "network.layers"),
    "later format": ({"format": 2}, "format 2: wanted 1"),
    "missing": ({"weights_sha256": None}, "weights_sha256"),
}


@pytest.mark.parametrize(("changes", "words"), CHANGES.values(), ids=CHANGES)
def test_a_description_chooses_no_code_and_is_checked(changes, words, folder, tmp_path, monkeypatch):
    write_canary(tmp_path, monkeypatch)
    copy = Path(shutil.copytree(folder[0], tmp_path / "policy"))
    description = json_to_edit(copy / "policy.json")
    for key, value in changes.items():
        description[key] = {**description[key], **value} if key == "hyper_parameters" else value
    (copy / "policy.json").write_text(json.dumps(description))
    with pytest.raises(lightning_bc.InputError, match=re.escape(words)) as refusal:
        lightning_bc.load(copy)
    assert "policy" in str(refusal.value)
    assert not (tmp_path / "imported").exists()


def test_the_environment_of_a_description_is_not_imported(folder, tmp_path, monkeypatch):
    write_canary(tmp_path, monkeypatch)
    copy = Path(shutil.copytree(folder[0], tmp_path / "policy"))
    description = json_to_edit(copy / "policy.json") | {"environment_id": "canary:InvertedPendulum-v5"}
    (copy / "policy.json").write_text(json.dumps(description))
    with pytest.warns(UserWarning, match="canary:InvertedPendulum-v5"):
        policy = lightning_bc.load(copy)
    with pytest.raises(lightning_bc.InputError, match="Give environment_id"):
        lightning_bc.evaluate(policy)
    assert not (tmp_path / "imported").exists()


def test_damaged_weights_are_refused(folder, tmp_path):
    copy = Path(shutil.copytree(folder[0], tmp_path / "policy"))
    content = bytearray((copy / "policy.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "policy.safetensors").write_bytes(content)
    with pytest.raises(lightning_bc.InputError, match="SHA-256"):
        lightning_bc.load(copy)
    (copy / "policy.safetensors").unlink()
    with pytest.raises(lightning_bc.InputError, match="no such file"):
        lightning_bc.load(copy)


def test_the_weights_are_those_that_act(tmp_path):
    exported.write(tmp_path, trained(strategies()["SAC"]), None, None, None)
    names = {name.rpartition(".layers.")[0] for name in load_file(tmp_path / "policy.safetensors")}
    assert names == {"agent.averaged"}


@pytest.mark.slow
def test_the_command_writes_and_compares_graphs(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    main(["export", "--ckpt_path", str(folder[1]), "--output", "policy", "--onnx", "true"])
    printed, text = capsys.readouterr().out, Path("policy/README.md").read_text()
    assert "20 of 20 returns are equal" in printed
    assert "20 of 20 returns are equal" in text
    assert {path.name for path in Path("policy").iterdir()} == {
        *("README.md", "policy.json", "policy.safetensors", "policy.onnx", "policy_sampled.onnx")
    }
    strategy = lightning_bc.load("policy").strategy
    noise_dim = exported.read("policy")["onnx"]["policy_sampled.onnx"]["noise_dim"]
    assert f"np.random.randn(batch, {noise_dim})" in text
    observations, noise = onnx_graphs.random_observations(strategy, 33), torch.randn(33, noise_dim)
    found = run("policy/policy_sampled.onnx", observations=observations, noise=noise)
    with torch.inference_mode():
        np.testing.assert_allclose(found, Act(strategy, False)(observations, noise), rtol=0, atol=1e-5)


@pytest.mark.slow
@every_strategy
def test_every_strategy_is_a_graph(cls, tmp_path):
    """The check at export compares them: see ``TOLERANCE``; here that it compares something, and in chunks too."""
    loops = {"act_steps": 3} if "act_steps" in cls.__init__.__annotations__ else {}
    for windows in ({}, WINDOWS) if "chunk" in cls.__init__.__annotations__ else ({},):
        strategy = trained(cls, **loops, **windows)
        graphs = onnx_graphs.write(tmp_path, strategy)
        assert set(graphs) == {"policy.onnx"} | ({"policy_sampled.onnx"} if cls.stochastic else set())
        assert all(0 <= graph["largest_difference"] <= 1e-5 for graph in graphs.values())
        found = run(tmp_path / "policy.onnx", observations=onnx_graphs.random_observations(strategy, 200))
        assert found.reshape(200, -1).std(0).min() > 0.003          # it answers what it sees


@pytest.mark.slow
@pytest.mark.parametrize("cls", [strategies()[name] for name in ("GaussianMixture", "Autoregressive", "Ensemble")])
def test_sampled_choices_have_the_policys_distribution(cls, tmp_path):
    strategy = trained(cls)
    onnx_graphs.write(tmp_path, strategy)
    observations = onnx_graphs.random_observations(strategy, 1).expand(40_000, -1).contiguous()
    noise = torch.randn(40_000, onnx_graphs.noise_dim(strategy), generator=torch.Generator().manual_seed(0))
    found = run(tmp_path / "policy_sampled.onnx", observations=observations, noise=noise)
    with torch.inference_mode():
        wanted = strategy(observations, deterministic=False).numpy()
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):                         # quantiles, within five standard errors
        quantile = np.quantile(wanted, share, axis=0)
        np.testing.assert_allclose((found < quantile).mean(0), (wanted < quantile).mean(0), rtol=0, atol=0.018)
