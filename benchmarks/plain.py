"""The script that one would write without this package: DataLoader, torch and one Gymnasium environment."""

import itertools

import gymnasium
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def train(
    environment_id: str, observations: Tensor, actions: Tensor, batch_size: int, every: int, episodes: int
) -> list[float]:
    """Clone by the likelihood of a Normal in one pass; the mean return of ``episodes`` at every so many steps.

    Args:
        environment_id: Gymnasium id.
        observations: (pairs, observation_dim).
        actions: (pairs, action_dim).
        batch_size: pairs per step.
        every: optimizer steps between two points.
        episodes: per point, one after another.
    """
    mean, scale = observations.mean(0), observations.std(0)
    sizes = [observations.shape[1], 256, 256, 256, actions.shape[1]]
    layers: list[nn.Module] = []
    for size_in, size_out in itertools.pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    log_std = nn.Parameter(torch.zeros(actions.shape[1]))
    optimizer = torch.optim.AdamW([*network.parameters(), log_std], lr=1e-3)
    environment = gymnasium.make(environment_id)
    returns = [evaluate(network, mean, scale, environment, episodes)]
    loader = DataLoader(TensorDataset(observations, actions), batch_size, shuffle=True)
    for step, (seen, done) in enumerate(loader, start=1):
        loss = -torch.distributions.Normal(network((seen - mean) / scale), log_std.exp()).log_prob(done).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every == 0:
            returns.append(evaluate(network, mean, scale, environment, episodes))
    environment.close()
    return returns


@torch.no_grad()
def evaluate(network: nn.Module, mean: Tensor, scale: Tensor, environment: gymnasium.Env, episodes: int) -> float:
    """Mean return."""
    total = 0.0
    for episode in range(episodes):
        observation, _ = environment.reset(seed=episode)
        is_over = False
        while not is_over:
            seen = torch.as_tensor(observation, dtype=torch.float32)
            observation, reward, terminated, truncated, _ = environment.step(network((seen - mean) / scale).numpy())
            total += float(reward)
            is_over = terminated or truncated
    return total / episodes
