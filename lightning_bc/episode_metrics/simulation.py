"""What the simulator says of the episodes."""

from lightning_bc.episode_metrics import episode_metric
from lightning_bc.episodes import Episodes
from lightning_bc.references import References


@episode_metric(
    unit="share, 0 to 1",
    meaning="(1/N) times the number of i in which MuJoCo warned of an unstable simulation, and began it anew",
)
def unstable_episodes(episodes: Episodes, references: References) -> float:
    """The share of episodes whose positions, velocities or accelerations were beyond numbers; their returns say little."""
    return 0.0 if episodes.unstable is None else float(episodes.unstable.mean())
