"""Policies, evaluation and collection from Python, against the strategies and loops that they are made of."""

import json
import re
import subprocess
import sys
import warnings
from collections import deque
from fractions import Fraction
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, actor_state, build_strategy, refused, write_pairs, write_pendulum
from lightning.pytorch import Trainer

import lightning_bc
from lightning_bc.cli import main
from lightning_bc.environments import environment_spaces, make
from lightning_bc.environments.make import _limits
from lightning_bc.episodes import SELECTION_BANK, TEST_BANK, play
from lightning_bc.errors import InputError
from lightning_bc.files import write
from lightning_bc.networks import MLP
from lightning_bc.references import References
from lightning_bc.runs.folders import results_path
from lightning_bc.runs.results import Results
from lightning_bc.strategies import MSE, Diffusion, Ensemble, Gaussian

PENDULUM = {"observation_dim": 4, "action_low": (-3.0,), "action_high": (3.0,)}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def trained(folder, cls=Gaussian, **options):
    """A checkpoint of a few steps of Lightning's own loop, and the strategy."""
    data = lightning_bc.Demonstrations(write_pendulum(folder / "pendulum.pt"), batch_size=10)
    strategy = cls(data.observation_dim, data.action_low, data.action_high, **options)
    trainer = Trainer(max_steps=3, default_root_dir=folder, enable_checkpointing=False, **QUIET)
    trainer.fit(strategy, datamodule=data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt", strategy


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"))


def test_importing_the_package_imports_neither_torch_nor_gymnasium():
    code = "import sys, lightning_bc; print([name for name in ('torch', 'gymnasium', 'numpy') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=REPOSITORY).strip() == "[]"


def test_every_name_that_is_promised_is_there_and_no_other():
    for name in lightning_bc.__all__:
        assert getattr(lightning_bc, name) is not None, name
    assert set(lightning_bc.__all__) <= set(dir(lightning_bc))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = lightning_bc.lode


# Policies


def test_a_policy_answers_as_the_strategy_and_in_kind(checkpoint):
    path, strategy = checkpoint
    policy = lightning_bc.load(path)
    assert policy.environment_id == "InvertedPendulum-v5"
    assert isinstance(policy.strategy, Gaussian)
    observations = np.random.default_rng(0).normal(size=(5, 4))     # float64
    wanted = strategy.eval()(torch.as_tensor(observations, dtype=torch.float32)).detach()
    for batch in (observations, observations.astype(np.float32), observations.tolist()):
        actions = policy(batch)
        assert isinstance(actions, np.ndarray)
        assert actions.dtype == np.float32
        np.testing.assert_array_equal(actions, wanted)
    single = policy(observations[2])
    assert single.shape == (1,)
    np.testing.assert_allclose(single, wanted[2], rtol=1e-5)
    tensor = policy(torch.as_tensor(observations).requires_grad_())
    torch.testing.assert_close(tensor, wanted, rtol=0, atol=0)
    assert not tensor.requires_grad
    torch.nn.Linear(1, 1)(tensor).sum().backward()                  # not an inference tensor


def test_sampled_actions_follow_torchs_seed(checkpoint):
    policy = lightning_bc.load(checkpoint[0])
    observations, drawn = np.zeros((50, 4)), []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(policy(observations, deterministic=False))
    np.testing.assert_array_equal(*drawn)
    assert len(np.unique(drawn[0])) > 10
    assert np.ptp(policy(observations)) < 1e-6


def test_answers_of_double_precision_are_float32_too():
    strategy = build_strategy(Gaussian).double()
    assert lightning_bc.Policy(strategy)(np.zeros(3)).dtype == np.float32
    assert lightning_bc.Policy(strategy)(torch.zeros(2, 3)).dtype == torch.float32


def test_a_strategy_in_training_acts_in_evaluation_mode_and_goes_on_as_before():
    strategy, seen = build_strategy(Gaussian).train(), []
    strategy.network.layers.insert(1, torch.nn.Dropout(0.5).eval())  # a layer that is never to train
    strategy.network.register_forward_hook(lambda module, *_: seen.append(module.training))
    lightning_bc.Policy(strategy)(np.zeros(3))
    assert seen == [False]
    assert strategy.training
    assert not strategy.network.layers[1].training


def test_actions_stay_within_bounds_whose_middle_is_rounded():
    low, high = np.float32([-0.1, 0.3]), np.float32([0.7, 1e3])
    strategy = build_strategy(MSE, action_low=low.tolist(), action_high=high.tolist(), squash=False)
    strategy.act = lambda observations, deterministic: observations[:, :2]
    for sign in (-1e9, 1e9):
        actions = lightning_bc.Policy(strategy)(np.full((1, 3), sign))[0]
        assert (low <= actions).all()
        assert (actions <= high).all()


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.zeros(5), r"shape \(5,\), wanted \(4,\) or \(batch, 4\)"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.array([0.0, np.nan, 0.0, 0.0]), r"observation\[1\] is nan"),
        (np.array([[0.0] * 4, [0.0, 0.0, np.inf, 0.0]]), r"observation\[1, 2\] is inf"),
        ({"position": 1}, "is a dict that is no array of numbers"),
        (["a", "b", "c", "d"], "is a list that is no array"),
        (["1", "2", "3", "4"], "is a list that is no array"),
        (np.array([0.0, None, 0.0, 0.0], object), r"is a ndarray that is no array of numbers \(it holds NoneType\)"),
        (np.zeros(4, "m8[s]"), r"no array of numbers \(it holds timedelta64\)"),
        ([[0.0] * 4, [0.0]], "is a list that is no array"),
        ([torch.zeros(4, requires_grad=True)], "is a list that is no array"),
        (np.zeros(4, complex), "is a ndarray of complex numbers; wanted real ones"),
        ([0.0, 1j, 0.0, 0.0], "is a list of complex numbers"),
        (np.array([0.0, 1j, 0.0, 0.0], object), "is a ndarray of complex numbers"),
        (torch.zeros(4, dtype=torch.complex64), "is a Tensor of complex numbers"),
        (np.ma.masked_array(np.zeros(4), [0, 1, 0, 0]), r"is a MaskedArray with masked numbers; wanted all\."),
        ([np.ma.masked_array(np.zeros(4), [0, 1, 0, 0])], "is a list with masked numbers"),
        (np.full(4, 1e300), r"observation\[0\] is 1e\+300: wanted finite numbers, at most 3\.4e\+38 in size, as float32"),
        ([[0.0, 0.0, -1e300, 0.0]], r"observation\[0, 2\] is -1e\+300"),
        (torch.full((4,), 1e300, dtype=torch.float64), r"observation\[0\] is 1e\+300"),
        (torch.zeros(4, device="meta"), "is a Tensor on the device meta, which holds no numbers"),
        ([10**400, 0, 0, 0], "holds a number that float32 does not"),
    ],
    ids=lambda value: "",
)
def test_what_is_no_observation_is_refused(checkpoint, observation, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = lightning_bc.load(checkpoint[0])
        with pytest.raises(InputError, match=words):
            policy(observation)


@pytest.mark.parametrize("deterministic", ["no", None, 2, [True], torch.tensor(True), np.ones(2, bool)])
def test_deterministic_is_true_or_false(checkpoint, deterministic):
    with pytest.raises(InputError, match=f"deterministic={re.escape(repr(deterministic))}: wanted True or False"):
        lightning_bc.load(checkpoint[0])(np.zeros(4), deterministic=deterministic)


def test_an_array_is_taken_however_its_numbers_lie(checkpoint):
    policy, observations = lightning_bc.load(checkpoint[0]), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    fixed = observations.copy()
    fixed.flags.writeable = False
    wanted = policy(observations)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one in (
            observations[::-1].copy()[::-1],                        # negative strides
            np.asfortranarray(observations),
            observations.astype(">f8"),
            observations.astype(np.longdouble),
            observations.astype(object),
            np.ma.masked_array(observations),                       # nothing is masked
            fixed,
            [*observations.astype(">f4")],
            [[Fraction(float(number)) for number in row] for row in observations],
        ):
            np.testing.assert_array_equal(policy(one), wanted)
    assert policy([10**30, True, 0.0, 0]).shape == (1,)


# Memory


def with_memory(**options):
    return build_strategy(Diffusion, **PENDULUM, history=3, horizon=8, chunk=4, act_steps=2, **options)


def by_queues(strategy, observations):
    """Actions of one episode of ``observations`` (steps, observation_dim), from two queues."""
    seen, actions, answers = deque([observations[0]] * 3, maxlen=3), deque(), []
    for observation in observations:
        seen.append(observation)
        if not actions:
            actions.extend(strategy(torch.stack(list(seen)).unsqueeze(0))[0])
        answers.append(actions.popleft().detach().numpy())
    return np.array(answers)


def test_a_policy_with_memory_plays_chunks_and_begins_anew_after_reset():
    strategy, observations = with_memory(), torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    policy, wanted = lightning_bc.Policy(strategy), by_queues(strategy, observations)
    for _ in range(2):
        np.testing.assert_allclose([policy(row) for row in observations.numpy()], wanted, rtol=1e-5, atol=1e-6)
        policy.reset()                                              # in the middle of a chunk: 10 is no multiple of 4


def test_rows_of_a_batch_begin_episodes_of_their_own():
    strategy, observations = with_memory(), torch.randn(10, 2, 4, generator=torch.Generator().manual_seed(0))
    policy, actions = lightning_bc.Policy(strategy), []
    for step, batch in enumerate(observations):
        if step == 3:
            policy.reset(np.array([False, True]))
        actions.append(policy(batch).numpy())
    actions = np.array(actions)                                     # (steps, 2, action_dim)
    np.testing.assert_allclose(actions[:, 0], by_queues(strategy, observations[:, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actions[3:, 1], by_queues(strategy, observations[3:, 1]), rtol=1e-5, atol=1e-6)


def test_a_memory_of_other_episodes_is_refused():
    policy = lightning_bc.Policy(with_memory())
    policy(np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"2 rows, and 3 episodes are played.*Call reset\(\)"):
        policy(np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"deterministic=False: these episodes began with True"):
        policy(np.zeros((3, 4)), deterministic=False)
    with pytest.raises(InputError, match="2 rows, and 3 episodes"):
        policy.reset(np.array([True, False]))
    with pytest.raises(InputError, match="wanted a mask"):
        policy.reset([0, 2])
    policy.reset()
    assert policy(np.zeros((2, 4)), deterministic=False).shape == (2, 1)


def test_a_loop_of_ones_own_earns_what_the_evaluator_says():
    policy = lightning_bc.Policy(with_memory(), "InvertedPendulum-v5")
    evaluated = lightning_bc.evaluate(policy, episodes=3)
    environment = gymnasium.make("InvertedPendulum-v5")
    for seed, wanted in zip(TEST_BANK.seeds(3), evaluated.returns, strict=True):
        observation, _ = environment.reset(seed=seed)
        policy.reset()
        total, ended = 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = environment.step(policy(observation))
            total, ended = total + float(reward), terminated or truncated
        assert total == wanted
    environment.close()


# Loading


def test_a_run_is_found_by_its_name_and_its_folders(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("checkpoints/mine", "lightning_logs/mine", "lightning_logs/unfinished"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "checkpoints/mine/last.ckpt").write_bytes(checkpoint[0].read_bytes())
    for name in ("mine", "checkpoints/mine", "lightning_logs/mine", tmp_path / "lightning_logs/mine"):
        assert lightning_bc.load(name).path.samefile("checkpoints/mine/last.ckpt")
    with pytest.raises(InputError, match=r"min: no such checkpoint.*Nearest: mine\."):
        lightning_bc.load("min")
    assert re.fullmatch(
        r"Policy\(\w+, 4 to 1 dimensions, of InvertedPendulum-v5, from checkpoints/mine/last\.ckpt\)",
        repr(lightning_bc.load("mine")),
    )
    with pytest.raises(InputError, match=r"lightning_logs/unfinished: no such checkpoint, and no last\.ckpt of that run"):
        lightning_bc.load("lightning_logs/unfinished")


def test_the_shipped_expert_is_known_to_be_of_its_environment(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert lightning_bc.load("checkpoints/experts/HalfCheetah-v5.pt").environment_id == "HalfCheetah-v5"


def test_an_experts_file_is_a_policy_that_does_not_know_its_environment(tmp_path):
    write(tmp_path / "actor.pt", actor_state(4, 1, scale=3.0))
    policy = lightning_bc.load(tmp_path / "actor.pt")
    assert policy(np.zeros(4)).shape == (1,)
    assert policy.environment_id is None
    with pytest.raises(InputError, match="which environment the policy acts in"):
        lightning_bc.evaluate(policy)
    assert np.isnan(lightning_bc.evaluate(policy, "InvertedPendulum-v5", 2).normalized)


def test_a_network_built_in_python_is_built_again(tmp_path):
    build = partial(MSE, network=partial(MLP, hidden_sizes=(8,)))
    path, strategy = trained(tmp_path, build)
    with pytest.raises(InputError, match=r"last\.ckpt: MSE cannot be built from it.*lightning_bc\.load\(path, strategy\)"):
        lightning_bc.load(path)
    policy = lightning_bc.load(path, build(**PENDULUM))
    observations = torch.randn(3, 4)
    torch.testing.assert_close(policy(observations), strategy.eval()(observations).detach())
    with pytest.raises(InputError, match="is a checkpoint of MSE, and the given strategy is a Gaussian"):
        lightning_bc.load(path, Gaussian(**PENDULUM))
    with pytest.raises(InputError, match=r"holds network\.\S+ \(8, 4\)"):
        lightning_bc.load(path, MSE(**PENDULUM))


def test_a_checkpoint_whose_optimizer_is_not_known_any_more_is_refused(tmp_path):
    path, _ = trained(tmp_path, partial(MSE, network=partial(MLP, hidden_sizes=(8,))))
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] = {
        "_class_path": "lightning_bc.strategies.MSE",
        **PENDULUM,
        "optimizer": {"class_path": "lightning_bc.strategies.optimizers.Earlier", "init_args": {"lr": 0.1}},
    }
    torch.save(content, path)
    with pytest.raises(InputError, match=r"last\.ckpt: MSE cannot be built from it.*another version wrote it"):
        lightning_bc.load(path)


def test_a_file_is_never_run(tmp_path, payload):
    bomb, evidence = payload
    torch.save({"pytorch-lightning_version": "2", "state_dict": bomb}, tmp_path / "bomb.ckpt")
    with pytest.raises(InputError, match=r"bomb\.ckpt"):
        lightning_bc.load(tmp_path / "bomb.ckpt")
    assert not evidence.exists()


def test_what_other_libraries_and_functions_need_is_told_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_controllers.py").write_text("def rest(observations):\n    return 0 * observations[:, :1]\n")
    policy = lightning_bc.load("my_controllers:rest", environment_id="InvertedPendulum-v5")
    assert policy.environment_id == "InvertedPendulum-v5"
    np.testing.assert_array_equal(policy(np.ones((2, 4))), np.zeros((2, 1)))
    assert lightning_bc.evaluate(policy, episodes=2).mean > 1
    write(tmp_path / "actor.pt", actor_state(4, 1, scale=3.0))
    assert lightning_bc.load("actor.pt", environment_id="InvertedPendulum-v5").environment_id == "InvertedPendulum-v5"
    with pytest.raises(InputError, match=r"actor\.pt: is an expert for 4-dimensional observations; Hopper-v5"):
        lightning_bc.load("actor.pt", environment_id="Hopper-v5")


# Evaluation


def test_the_evaluator_plays_the_banks_episodes(checkpoint):
    policy = lightning_bc.load(checkpoint[0])
    for name, bank in (("test", TEST_BANK), ("selection", SELECTION_BANK)):
        evaluated = lightning_bc.evaluate(policy, episodes=7, bank=name)
        wanted = play(policy.strategy.player(), make("InvertedPendulum-v5", 2), bank.seeds(7))
        np.testing.assert_array_equal(evaluated.returns, wanted.returns)
        np.testing.assert_array_equal(evaluated.lengths, wanted.lengths)
        assert evaluated.mean == pytest.approx(wanted.returns.mean())
        assert evaluated.std == pytest.approx(wanted.returns.std())
        assert evaluated.normalized == pytest.approx((wanted.returns.mean() - 5) / (1000 - 5))
        assert evaluated.failed == (wanted.returns < 500).mean()
        assert f"7 {name}-bank episodes, deterministic actions" in str(evaluated)


def test_strategies_policies_and_functions_are_evaluated_alike(checkpoint):
    policy = lightning_bc.load(checkpoint[0])
    strategy = policy.strategy.train()
    results = [
        lightning_bc.evaluate(one, "InvertedPendulum-v5", 5, references=References(0.0, 10.0, "made up")).returns
        for one in (policy, strategy, lambda observations: policy(observations))
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert strategy.training


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda observations: np.zeros(len(observations)), r"answers an array of shape \(2,\).*wanted \(2, 1\)"),
        (lambda observations: None, r"answers an array of shape \(\)"),
        (lambda observations: np.full((len(observations), 1), np.nan), r"answers \[nan\].*wanted finite numbers"),
        (lambda observations: np.full((len(observations), 1), 3.5), r"answers \[3\.5\], outside the bounds.*-3\.0.*3\.0"),
        (lambda observations: "left", "raised ValueError: could not convert string"),
    ],
    ids=["shape", "nothing", "nan", "bounds", "text"],
)
def test_what_is_no_action_is_refused(function, words):
    with pytest.raises(InputError, match=words):
        lightning_bc.evaluate(function, "InvertedPendulum-v5", 2)


def test_what_cannot_be_evaluated_is_refused(checkpoint):
    policy = lightning_bc.load(checkpoint[0])
    with pytest.raises(InputError, match=r"last\.ckpt: is an expert for 4-dimensional observations"):
        lightning_bc.evaluate(policy, "Hopper-v5")
    with pytest.raises(InputError, match="episodes=0: wanted 1 to 1,000,000"):
        lightning_bc.evaluate(policy, episodes=0)
    with pytest.raises(InputError, match='bank="train": wanted'):
        lightning_bc.evaluate(policy, bank="train")
    with pytest.raises(InputError, match="environment_id: is an environment, wanted its id"):
        lightning_bc.evaluate(policy, gymnasium.make("InvertedPendulum-v5"))
    with pytest.raises(InputError, match="policy: is a str"):
        lightning_bc.evaluate("last.ckpt", "InvertedPendulum-v5")
    for wrong, words in (
        ({"episodes": "2"}, 'episodes="2": wanted a whole number.'),
        ({"episodes": 2.0}, "episodes=2.0: wanted a whole number."),
        ({"max_episode_steps": "5"}, 'max_episode_steps="5": wanted a whole number, or None.'),
        ({"references": (0, 1000)}, "references: is a tuple; wanted those of Demonstrations"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            lightning_bc.evaluate(policy, **wrong)
    with pytest.raises(InputError, match="wanted what load returns, a strategy, or a function"):
        lightning_bc.evaluate(MSE, "InvertedPendulum-v5")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: build_strategy(MSE, schedule="Constant"), 'schedule="Constant": wanted "cosine" or "constant".'),
        (lambda: build_strategy(Ensemble, members=()), "members: there are none."),
        (lambda: build_strategy(Ensemble, members=["MSE", "ACT"]), "members=['MSE', 'ACT']: wanted a list, each \"Autoreg"),
        (lambda: build_strategy(MSE, action_low=[-1.0, -1.0], action_high=[1.0]), "action_low [-1.0, -1.0], action_high"),
        (lambda: build_strategy(MSE, action_low=[1.0], action_high=[-1.0]), "action_low [1.0], action_high [-1.0]: wanted"),
        (lambda: lightning_bc.write_demonstrations("x.pt", {}), "demonstrations: is a dict; wanted lightning_bc.Trajec"),
        (lambda: lightning_bc.Rollouts(eval_freq=0), "eval_freq=0: wanted a whole number, at least 1."),
        (lambda: lightning_bc.DAgger("expert.pt", beta=2), "beta=2: wanted 0 to 1."),
        (lambda: lightning_bc.collect("Hopper-v5", len, 10, actions="sample"), 'actions="sample": wanted "sampled" or'),
    ],
)
def test_from_python_arguments_are_looked_at_too(make, words):
    with pytest.raises(InputError, match=f"^{re.escape(words)}"):
        make()


@pytest.mark.parametrize("wrong", [{"observation_dim": 3}, {"action_high": (1.0,)}, {"action_low": (-3.0,) * 2}])
def test_a_strategy_of_another_environment_is_not_trained(wrong, tmp_path):
    data, (name,) = lightning_bc.Demonstrations(write_pendulum(tmp_path / "pendulum.pt")), wrong
    strategy = build_strategy(MSE, **(PENDULUM | {"action_high": (3.0,) * len(wrong.get("action_low", "1"))} | wrong))
    with pytest.raises(InputError, match=f"MSE: {name} is .*, and of InvertedPendulum-v5 it is .*Build it from the data"):
        Trainer(max_steps=1, **QUIET).fit(strategy, datamodule=data)


def test_what_cannot_be_loaded_is_refused(checkpoint):
    with pytest.raises(InputError, match="load: path is a NoneType; wanted a file, a folder or the name of a run"):
        lightning_bc.load(None)
    with pytest.raises(InputError, match=r"device='gpu': Expected one of cpu, cuda.*Wanted one that torch has here"):
        lightning_bc.load(checkpoint[0], device="gpu")
    for device in ("meta", torch.device("meta")):
        with pytest.raises(InputError, match=r"device=.*meta.*: holds no numbers.*Wanted one that torch has here"):
            lightning_bc.load(checkpoint[0], device=device)


# Demonstrations


def test_a_function_demonstrates_and_its_file_is_learnt_from(tmp_path):
    def lean(observations):
        return np.clip(20 * observations[:, 1:2], -3, 3)

    made = lightning_bc.collect("InvertedPendulum-v5", lean, 300, output=tmp_path / "lean.pt", progress=False)
    assert len(made) == 300
    np.testing.assert_allclose(made.actions, lean(made.observations.numpy()), rtol=1e-6)
    assert len(made.origin.expert_returns) == len(made.origin.random_returns) == 100
    read = lightning_bc.read_demonstrations(tmp_path / "lean.pt")
    assert torch.equal(read.observations, made.observations)
    assert torch.equal(read.lengths, made.lengths)
    data = lightning_bc.Demonstrations(str(tmp_path / "lean.pt"))
    assert data.environment_id == "InvertedPendulum-v5"             # as the file says
    assert data.references.expert_return == pytest.approx(np.mean(made.origin.expert_returns))
    with pytest.raises(InputError, match=r"lean\.pt: exists and is not overwritten"):
        lightning_bc.collect("InvertedPendulum-v5", lean, 300, output=tmp_path / "lean.pt")


def test_a_checkpoint_demonstrates_as_on_the_command_line(checkpoint, tmp_path):
    from lightning_bc.demonstrations import collect

    path = collect("InvertedPendulum-v5", str(checkpoint[0]), str(tmp_path / "cli.pt"), 200, "exploratory", 5)
    wanted = lightning_bc.read_demonstrations(path)
    made = lightning_bc.collect("InvertedPendulum-v5", checkpoint[0], 200, actions="exploratory", seed=5, progress=False)
    for name in ("observations", "actions", "rewards", "lengths", "terminated", "final_observations"):
        assert torch.equal(getattr(made, name), getattr(wanted, name)), name
    for name in ("expert_sha256", "random_returns", "expert_returns", "mean_return", "actions", "seed"):
        assert getattr(made.origin, name) == getattr(wanted.origin, name), name


def test_arrays_of_ones_own_are_written_and_read(tmp_path):
    spaces = environment_spaces("InvertedPendulum-v5")
    mine = lightning_bc.Trajectories(
        observations=torch.randn(9, spaces.observation_dim), actions=torch.zeros(9, 1), lengths=torch.tensor([4, 5]),
        rewards=torch.ones(9),
    )  # fmt: skip
    read = lightning_bc.read_demonstrations(lightning_bc.write_demonstrations(tmp_path / "mine.pt", mine))
    assert torch.equal(read.observations, mine.observations)
    assert read.mean_return == 4.5
    with pytest.raises(InputError, match=r"mine\.npz: wanted a file that ends in \.pt"):
        lightning_bc.write_demonstrations(tmp_path / "mine.npz", mine)


@pytest.mark.parametrize("name", ["mine.pt", "mine.shards"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": torch.tensor([4, 4])}, "episode_lengths must be positive integers that sum to the number of pairs, 9"),
        ({"actions": torch.zeros(8, 1)}, "9 observations, as episode_lengths sum to, but 8 actions"),
        ({"observations": torch.full((9, 4), torch.nan)}, r"observations\[0\] holds NaN"),
        ({"observations": torch.zeros(9)}, r"observations has shape \(9,\)"),
        ({"rewards": torch.ones(10)}, "10 rewards for 9 pairs"),
    ],
    ids=["lengths", "actions", "nan", "vector", "rewards"],
)
def test_what_would_not_be_read_is_not_written(name, changes, words, tmp_path):
    good = {"observations": torch.zeros(9, 4), "actions": torch.zeros(9, 1), "lengths": torch.tensor([4, 5])}
    with pytest.raises(InputError, match=f"{name}: {words}"):
        lightning_bc.write_demonstrations(tmp_path / name, lightning_bc.Trajectories(**good | changes))
    assert not [*tmp_path.iterdir()]
    double = good | {"observations": torch.zeros(9, 4, dtype=torch.float64)}
    written = lightning_bc.write_demonstrations(tmp_path / name, lightning_bc.Trajectories(**double))
    assert len(lightning_bc.read_demonstrations(written)) == 9


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can make a file")
def test_a_folder_that_takes_no_file_is_refused():
    mine = lightning_bc.Trajectories(torch.zeros(2, 4), torch.zeros(2, 1), torch.tensor([2]))
    with pytest.raises(InputError, match=r"/proc/mine\.pt: no file can be made in its folder"):
        lightning_bc.write_demonstrations("/proc/mine.pt", mine)


def test_a_file_that_does_not_say_its_environment_asks_for_it(tmp_path):
    path = write_pairs(tmp_path / "mine.pt")
    with pytest.raises(InputError, match=r"mine\.pt: does not say of which environment\. Give environment_id"):
        lightning_bc.Demonstrations(path)
    assert lightning_bc.Demonstrations(path, "HalfCheetah-v5").environment_id == "HalfCheetah-v5"
    with pytest.raises(InputError, match="without a path: does not say"):
        lightning_bc.Demonstrations(None)
    assert lightning_bc.Demonstrations().environment_id == "HalfCheetah-v5"


def test_episodes_without_a_time_limit_end_where_they_are_told_to():
    gymnasium.register("Endless-v0", "gymnasium.envs.classic_control:PendulumEnv")
    still = lambda observations: np.zeros((len(observations), 1), np.float32)  # noqa: E731
    with pytest.raises(InputError, match="max_episode_steps 0: wanted at least 1"):
        lightning_bc.evaluate(still, "Endless-v0", episodes=1, max_episode_steps=0)
    assert lightning_bc.evaluate(still, "Endless-v0", episodes=2, max_episode_steps=7).lengths.tolist() == [7, 7]
    made = lightning_bc.collect("Endless-v0", still, pairs=12, max_episode_steps=5, progress=False)
    assert made.lengths.tolist() == [5, 5, 2]
    with pytest.raises(InputError, match="Pendulum-v1 has a time limit of its own, 200 steps"):
        lightning_bc.evaluate(still, "Pendulum-v1", episodes=1, max_episode_steps=7)


def test_the_time_limit_of_the_demonstrations_counts_in_all_that_is_measured_against_them(tmp_path, monkeypatch, capsys):
    # by longer episodes' returns the expert itself would have failed
    monkeypatch.chdir(tmp_path)
    gymnasium.register("Boundless-v0", "gymnasium.envs.classic_control:PendulumEnv")
    still = lambda observations: np.zeros((len(observations), 1), np.float32)  # noqa: E731
    for name in ("mine.pt", "mine.shards"):
        lightning_bc.collect("Boundless-v0", still, pairs=60, max_episode_steps=6, progress=False, output=name)
        assert lightning_bc.read_demonstrations(name).origin.max_episode_steps == 6
    flags = ["fit", "--model", "MSE", "--data.path", "mine.pt", "--trainer.max_steps", "2", "--rollouts.eval_freq", "2"]
    error = refused(capsys, *flags, "--rollouts.max_episode_steps", "9")
    assert "--rollouts.max_episode_steps says 9 and --data.path mine.pt says 6" in error
    _limits.clear()                                                 # as in another process
    main([*flags, "--run", "mine", "--rollouts.episodes", "2"])
    assert Results.read(results_path("mine")).metrics["episode_length"] == 6
    _limits.clear()
    Path("mine.pt").rename("Boundless-v0.pt")                       # as the default's name has the environment in it
    flags[4] = "{env}.pt"
    main([*flags, "--env", "Boundless-v0", "--run", "named", "--rollouts.episodes", "2"])
    assert Results.read(results_path("named")).metrics["episode_length"] == 6
    _limits.clear()
    assert lightning_bc.evaluate(lightning_bc.load("mine"), episodes=2).lengths.tolist() == [6, 6]
    _limits.clear()
    main(["evaluate", "mine", "--episodes", "2", "--output", "it.json"])
    assert json.loads(Path("it.json").read_text())["evaluations"][0]["lengths"] == [6, 6]
    main(["export", "--ckpt_path", "mine", "--output", "folder"])
    _limits.clear()
    assert lightning_bc.evaluate(lightning_bc.load("folder"), episodes=2).lengths.tolist() == [6, 6]
