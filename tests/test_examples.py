"""A newcomer on another task: a script of one's own writes a file with the four keys, fit draws a curve and scores."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_bc.cli import main
from lightning_bc.demonstrations import reference_returns
from lightning_bc.environments import quiet_model_loading
from lightning_bc.runs import score

SMALL = "--model MSE --model.network MLP --model.network.hidden_sizes [64,64] --model.optimizer.lr 3e-3"
BUDGET = "--rollouts.eval_freq 300 --rollouts.episodes 2 --data.batch_size 250"


def swing_up(observation):
    """Pendulum-v1: pump energy until the pendulum is nearly upright, then hold it there."""
    cosine, sine, speed = observation
    if cosine > 0.9:
        torque = -10 * np.arctan2(sine, cosine) - 3 * speed
    else:
        missing_energy = 15 - (speed**2 / 2 + 15 * cosine)          # 15 = 3 g / (2 l) is the energy at rest upright
        torque = missing_energy * np.sign(speed)
    return np.clip([torque], -2, 2)


def hop(observation):
    """Hopper-v5: pull the joints towards one posture; it makes a hop and falls."""
    angles, speeds = observation[2:5], observation[8:11]
    return np.clip(3 * ([0.0, -0.2, 0.4] - angles) - 0.3 * speeds, -1, 1)


def write_four_keys(path, environment_id, controller, episodes):
    """What a user's own script does: play, and keep observations and actions; no package of ours in sight."""
    with quiet_model_loading():
        environment = gymnasium.make(environment_id)
    observations, actions, returns = [], [], []
    for seed in range(episodes):
        observation, _ = environment.reset(seed=seed)
        returns.append(0.0)
        ended = False
        while not ended:
            action = controller(observation).astype(np.float32)
            observations.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated, _ = environment.step(action)
            returns[-1] += float(reward)
            ended = terminated or truncated
    environment.close()
    content = {
        "observations": np.array(observations, np.float32),         # (pairs, observation_dim)
        "actions": np.array(actions),                               # (pairs, action_dim)
        "mean_reward": np.mean(returns),
        "std_reward": np.std(returns),
    }
    torch.save(content, path)
    return content


def fit_and_read(*arguments):
    """Run ``fit``; the steps of its curve and its results."""
    main(["fit", *SMALL.split(), *" ".join(arguments).split(), *BUDGET.split()])
    run = next(path.parent for path in Path("lightning_logs").glob("*/results.json"))
    events = EventAccumulator(str(run))
    events.Reload()
    steps = [event.step for event in events.Scalars("rollout/return_mean")]
    return steps, json.loads((run / "results.json").read_text())


def test_pendulum(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(score, "TEST_EPISODES", 20)
    monkeypatch.setattr(reference_returns, "TEST_EPISODES", 20)     # of random actions, here and below
    written = write_four_keys("mine.pt", "Pendulum-v1", swing_up, episodes=30)
    assert written["mean_reward"] > -400                            # random actions: about -1200
    steps, results = fit_and_read("--env Pendulum-v1 --data.path mine.pt --trainer.max_steps 900")
    assert steps == [0, 300, 600, 900]
    assert results["environment_id"] == "Pendulum-v1"
    assert results["data"]["training_episodes"] + results["data"]["validation_episodes"] == 30  # 200 steps each, its limit
    assert results["references"]["expert_return"] == pytest.approx(written["mean_reward"])
    assert results["normalized"] > 0.5
    printed = capsys.readouterr().out
    assert f"1 is {written['mean_reward']:.0f}, the mean return of the data file (no expert at hand)" in printed


def test_hopper(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reference_returns, "TEST_EPISODES", 20)
    written = write_four_keys("mine.pt", "Hopper-v5", hop, episodes=20)
    assert written["mean_reward"] > 80                              # random actions: about 17
    with pytest.raises(SystemExit):
        fit_and_read("--env Hopper-v5 --data.path mine.pt --trainer.max_steps 600")
    error = capsys.readouterr().err
    for words in ("mine.pt: has no episode_lengths", "--data.episode_length N", "--data.validation_fraction 0"):
        assert words in error
    assert not Path("lightning_logs").exists()

    steps, results = fit_and_read(
        "--env Hopper-v5 --data.path mine.pt --trainer.max_steps 600 --data.validation_fraction 0"
    )
    assert steps == [0, 300, 600]
    assert results["data"]["training_pairs"] == len(written["observations"])
    assert results["references"]["expert_return"] == pytest.approx(written["mean_reward"])
    assert results["normalized"] > 0.5
    assert len(results["returns"]) == score.TEST_EPISODES
    assert "mean return of the data file" in capsys.readouterr().out
