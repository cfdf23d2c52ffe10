"""Which ready configuration to begin with, by the pairs alone: how many they are, and whether their actions are noisy.

From few pairs five small networks of MSE clone best, from fewer and from many one network of MSE, and from many a mixture
where the expert may act in several ways: docs/which-method.md has the figures.
"""

from dataclasses import dataclass

from lightning_bc.demonstrations.action_noise import Noise

FEW_PAIRS = range(2_000, 40_000)
"""From so many the ensemble clones better than one network: from 4, 10 and on the whole 30 trajectories of 1000, not from
1 and 300 (measured in docs/action-models.md)."""


@dataclass(frozen=True)
class Advice:
    """A configuration in configs/ by its name, and why it is the one, in words that go on from "since"."""

    config: str
    why: str


def advised(pairs: int, noise: Noise) -> Advice:
    """What to begin with.

    Args:
        pairs: how many are learnt from.
        noise: of the actions.
    """
    if pairs in FEW_PAIRS:
        return Advice("mse_ensemble", f"{pairs:,} pairs are few")
    if pairs < FEW_PAIRS.start:
        return Advice("mse", f"{pairs:,} pairs are very few")
    if noise.verdict == "deterministic":
        return Advice("mse", "the expert answers like observations alike")
    if noise.verdict == "noisy":
        return Advice("gmm", "the expert answers like observations in several ways")
    return Advice("gmm", "it cannot be told whether the expert answers like observations in several ways")
