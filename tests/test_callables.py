"""Functions as experts: what they are given, what they may answer, and how they take part."""

import hashlib
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import BUDGET, refused

from lightning_bc.cli import main
from lightning_bc.demonstrations import load_expert, read
from lightning_bc.errors import InputError

PENDULUM = "InvertedPendulum-v5"                                    # 4 observed numbers, one action from -3 to 3
BALANCE = """
    import numpy as np

    GAINS = np.array([0.0, 30.0, 1.0, 3.0])

    def balance(observations):
        return np.clip(observations @ GAINS[:, None], -3, 3)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a module ``teacher.py`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def write(text=BALANCE, name="teacher.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in ("teacher", "school")]:
        del sys.modules[name]


def refusal(name, environment_id=PENDULUM):
    with pytest.raises(InputError) as caught:
        load_expert(name, environment_id)
    assert str(caught.value).startswith(f"{name}: ")
    return str(caught.value)


def test_a_function_with_the_parameter_is_told_whether_a_sample_is_asked_for(program):
    program("""
        import torch

        def balance(observations, deterministic=True):
            return 0 * observations[:, :1] if deterministic else torch.rand(len(observations), 1)
    """)
    expert = load_expert("teacher:balance", PENDULUM)
    observations, rows = torch.zeros(50, 4), torch.arange(50)
    assert (expert.player().act(observations, rows) == 0).all()
    torch.manual_seed(0)
    wanted = torch.rand(50, 1)
    torch.manual_seed(0)
    torch.testing.assert_close(expert.player(deterministic=False).act(observations, rows), wanted)


def test_a_function_is_given_arrays_and_answers_for_each_observation(program):
    program()
    observations = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    wanted = (observations @ torch.tensor([[0.0], [30.0], [1.0], [3.0]])).clamp(-3, 3)
    expert = load_expert("teacher:balance", PENDULUM)
    actions = expert.player().act(observations, torch.arange(50))
    torch.testing.assert_close(actions, wanted)
    assert actions.dtype == torch.float32
    assert (expert.observation_dim, expert.action_dim) == (4, 1)


def test_what_a_function_writes_into_stays_its_own(program):
    program("def inplace(observations):\n    observations *= 0\n    return observations[:, :1]\n")
    observations = torch.ones(3, 4)
    load_expert("teacher:inplace", PENDULUM)(observations)
    assert torch.equal(observations, torch.ones(3, 4))


@pytest.mark.parametrize(
    "text",
    [
        "act = lambda observations: observations[:, :1].tolist()",
        "import torch\nnetwork = torch.nn.Linear(4, 1)\ndef act(o):\n    return network(torch.from_numpy(o)).detach()",
        "class Teacher:\n    def __call__(self, o):\n        return o[:, :1]\nact = Teacher()",
    ],
    ids=["list", "tensor", "object"],
)
def test_whatever_is_called_and_makes_an_array_will_do(program, text):
    program(text)
    assert load_expert("teacher:act", PENDULUM)(torch.zeros(2, 4)).shape == (2, 1)


def test_packages_and_attributes_are_followed(program):
    program("class Teacher:\n    @staticmethod\n    def act(o):\n        return o[:, :1]\n", "school/latin.py")
    assert load_expert("school.latin:Teacher.act", PENDULUM)(torch.zeros(2, 4)).shape == (2, 1)


def test_a_file_of_that_name_goes_first(program, tmp_path):
    program()
    Path("teacher:balance").write_bytes(b"no expert")
    assert "cannot be read as an expert" in refusal("teacher:balance")


# Refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def act(o):\n    return o", ["(2, 4)", "(2, 1)"]),
        ("def act(o):\n    return o[:, 0]", ["(2,)", "(2, 1)"]),
        ("def act(o):\n    return o[:1, :1]", ["(1, 1)", "(2, 1)"]),
        ("def act(o):\n    return None", ["()", "(2, 1)"]),
        ("def act(o):\n    return 'left'", ["ValueError", "left"]),
        ("def act(o):\n    return o[:, :1] * float('nan')", ["[nan]", "finite"]),
        ("def act(o):\n    return o[:, :1] + 1e60", ["[inf]", "finite"]),
        ("def act(o):\n    return o[:, 7:8] / len(o)[3]", ["TypeError", "teacher.py, line 2", "(2, 4)"]),
        ("def act():\n    return 0", ["TypeError", "0 positional arguments"]),
        ("act = 3", ["is a int", "wanted a function"]),
        ("def other(o):\n    return o", ["there is no act", "other"]),
        ("import no_such_package\n", ["no_such_package, which is missing"]),
        ("def act(o):\nreturn o", ["IndentationError", "teacher.py"]),
        ("raise RuntimeError('no licence')", ["RuntimeError: no licence", "teacher.py, line 1"]),
    ],
)
def test_functions_that_will_not_do_are_refused(program, text, words):
    program(text)
    message = refusal("teacher:act")
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


def test_a_module_that_is_not_there_is_refused(program):
    assert "no module teacher, neither installed nor in" in refusal("teacher:act")
    assert "Did you mean teacher:act?" in refusal("teacher.py:act")
    assert "no module os.nothing" in refusal("os.nothing:act")


def test_a_function_is_an_expert_in_an_environment_only(program):
    program()
    assert "says nothing of its dimensions: give --env" in refusal("teacher:balance", None)


# Taking part


def fit_one(data, **options):
    callback = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": options}
    Path("dagger.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    main(["fit", "--model", "MSE", "--config", "dagger.yaml", "--data.path", data, "--run", "one", *BUDGET.split()])


def test_collect_plays_and_records_a_function(program):
    path = program()
    main(["collect", "--env", PENDULUM, "--expert", "teacher:balance", "--pairs", "2500", "--output", "pairs.pt"])
    file = read("pairs.pt")
    wanted = np.clip(file.observations.numpy() @ np.array([[0.0], [30.0], [1.0], [3.0]]), -3, 3)
    np.testing.assert_allclose(file.actions.numpy(), wanted, rtol=0, atol=1e-5)
    assert file.origin.expert == "teacher:balance"
    assert file.origin.expert_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(file.origin.expert_returns) == 100


def test_a_function_labels_for_dagger(program, data):
    program()
    options = {"expert": "teacher:balance", "round_every": 2, "rounds": 2, "episodes": 3}
    fit_one(data, **options)
    content = torch.load("checkpoints/one/last.ckpt", weights_only=True)
    observations, actions, _ = content["Demonstrations"]["collected"]
    torch.testing.assert_close(actions, (observations @ torch.tensor([[0.0], [30.0], [1.0], [3.0]])).clamp(-3, 3))
    results = json.loads(Path("lightning_logs/one/results.json").read_text())
    assert results["expert_queries"] == len(observations) > 0


def test_a_function_that_a_checkpoint_alone_names_is_not_imported(program, data, capsys):
    program()
    fit_one(data, expert="teacher:balance", round_every=2, rounds=2, episodes=1)
    main(["fit", "--run", "one", "--trainer.max_steps", "5"])       # the run's own folder names it too
    path = "checkpoints/one/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["config"]["trainer"]["callbacks"][0]["init_args"]["expert"] = "stranger:act"
    torch.save(content, path)
    program("raise SystemExit('ran')", "stranger.py")
    for flags in (["--ckpt_path", path], ["--run", "one"]):
        error = refused(capsys, "fit", *flags, "--trainer.max_steps", "6")
        assert "names stranger:act, which would be imported" in error
        assert "--config" in error
    assert "stranger" not in sys.modules


def test_a_function_that_will_not_do_is_refused_in_one_line_before_anything_is_made(program, capsys):
    program("def act(o):\n    return o")
    error = refused(capsys, "collect", "--env", PENDULUM, "--expert", "teacher:act", "--output", "folder/pairs.pt")
    assert error.count("\n") == 1
    assert not Path("folder").exists()


def test_a_function_that_uses_the_memory_of_its_answer_again_changes_no_earlier_answer(program):
    program("""
        import numpy as np

        memory = np.zeros((1000, 1), np.float32)

        def balance(observations):
            answer = memory[: len(observations)]
            np.clip(observations[:, :1], -3, 3, out=answer)
            return answer
    """)
    expert = load_expert("teacher:balance", PENDULUM)
    observations = torch.tensor([[0.5, 0, 0, 0], [-0.25, 0, 0, 0]])
    first = expert(observations)
    expert(2 * observations)
    assert first.flatten().tolist() == [0.5, -0.25]


def test_a_function_that_answers_outside_the_bounds_is_refused(program):
    program("""
        def balance(observations):
            return 0 * observations[:, :1] + 3.5
    """)
    assert "answers [3.5], outside the bounds of InvertedPendulum-v5" in refusal("teacher:balance")


def test_an_actor_of_wider_bounds_is_refused(tmp_path):
    actor = {f"fc{layer}.{part}": torch.zeros(size) for layer, part, size in (
        ("1", "weight", (4, 4)), ("1", "bias", (4,)), ("2", "weight", (4, 4)), ("2", "bias", (4,)),
        ("_mu", "weight", (1, 4)), ("_mu", "bias", (1,)),
    )}  # fmt: skip
    for scale in (3.0, 5.0):
        torch.save(actor | {"action_scale": torch.tensor([scale]), "action_bias": torch.zeros(1)}, tmp_path / f"{scale}.pt")
    load_expert(tmp_path / "3.0.pt", PENDULUM)
    with pytest.raises(InputError, match=r"reach from \[-5.0\] to \[5.0\]; InvertedPendulum-v5 takes those from \[-3.0\]"):
        load_expert(tmp_path / "5.0.pt", PENDULUM)
