"""Which ready configuration to begin with, by the pairs alone: how many they are, and whether their actions are noisy.

Where the expert acts in several ways, a mixture clones it. Else five small networks of MSE do from few pairs, one from fewer
and from many; and from many a mixture as well where nothing tells how the expert acts. docs/which-method.md has the figures.
"""

from dataclasses import dataclass

from lightning_bc.demonstrations.action_noise import Noise

FEW_PAIRS = range(2_000, 40_000)
"""From so many the ensemble clones better than one network: from 4, 10 and on the whole 30 trajectories of 1000, not from
1 and 300 (measured in docs/action-models.md)."""

SEVERAL_WAYS = 0.5
"""Noise of more than this part of the actions' standard deviation is a choice rather than noise: in lightning_bc:Gates-v0
0.7, of soft actor-critic's samples 0.3 to 0.4."""


@dataclass(frozen=True)
class Advice:
    """A configuration in configs/ by its name, and why it is the one, in words that go on from "since"."""

    config: str
    why: str


def advised(pairs: int, noise: Noise) -> Advice:
    """What to begin with.

    Args:
        pairs: how many there are, held-out ones among them.
        noise: of the actions.
    """
    if noise.verdict == "noisy" and noise.share > SEVERAL_WAYS:
        return Advice("gmm", "the expert answers like observations in several ways")
    if pairs < FEW_PAIRS.start:
        return Advice("mse", f"pairs are very few ({pairs:,})")
    if pairs in FEW_PAIRS:
        return Advice("mse_ensemble", f"pairs are few ({pairs:,})")
    if noise.verdict == "deterministic":
        return Advice("mse", "the expert answers like observations alike")
    return Advice("gmm", "the expert may answer like observations in several ways")
