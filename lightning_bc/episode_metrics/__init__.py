"""What is measured of played episodes: one number per metric, on each point of the curve and in results.json.

A metric is a function in a file of this folder, which is found by itself:

    @episode_metric(unit="reward", meaning="median of R")
    def return_median(episodes: Episodes, references: References) -> float:
        return float(np.median(episodes.returns))

It is then ``rollout/return_median`` on the curve (TensorBoard and curve.csv), ``metrics.return_median`` in results.json, and
a row of docs/metrics.md. In the meanings, N is the number of episodes, R_i the return and T_i the length of episode i. What
makes sense in some environments alone says which, ``environments=("Gates-v0",)``, and is measured there alone.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from lightning_bc.episodes import Episodes
from lightning_bc.references import References

Measure = Callable[[Episodes, References], float]


@dataclass(frozen=True)
class EpisodeMetric:
    """A number that is measured of played episodes.

    Attributes:
        measure: the function.
        unit: of the number; "1" where it has none.
        meaning: the equation, or in words.
        recorded: whether it reads the episodes' observations, actions or rewards, which are kept only where a metric asks.
        environments: ids, without their module, of the environments that it is of; none for all of them.
    """

    measure: Measure
    unit: str
    meaning: str
    recorded: bool = False
    environments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.measure.__name__

    def is_of(self, environment_id: str) -> bool:
        """Whether it is measured in this environment."""
        return not self.environments or environment_id.rpartition(":")[2] in self.environments


_known: dict[str, EpisodeMetric] = {}


def episode_metric(
    unit: str, meaning: str, recorded: bool = False, environments: tuple[str, ...] = ()
) -> Callable[[Measure], Measure]:
    """Make a function an episode metric: see :class:`EpisodeMetric`.

    Raises:
        ValueError: another function has made a metric of the same name.
    """

    def register(measure: Measure) -> Measure:
        metric = EpisodeMetric(measure, unit, meaning, recorded, environments)
        other = _known.setdefault(metric.name, metric).measure
        if other.__module__ != measure.__module__:
            raise ValueError(
                f"{measure.__module__}: {other.__module__} has an episode metric of the name {metric.name}. Rename one."
            )
        return measure

    return register


@functools.cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def episode_metrics() -> dict[str, EpisodeMetric]:
    """Every episode metric by its name: those of this folder, file by file, and those of a user that have been imported."""
    _import_all()
    own = {name: metric for name, metric in _known.items() if metric.measure.__module__.startswith(f"{__name__}.")}
    return dict(sorted(own.items(), key=lambda item: item[1].measure.__module__)) | _known


def measure_all(episodes: Episodes, references: References) -> dict[str, float]:
    """Every episode metric of the episodes' environment, by its name."""
    measured = {name: metric for name, metric in episode_metrics().items() if metric.is_of(episodes.environment_id)}
    return {name: float(metric.measure(episodes, references)) for name, metric in measured.items()}


def recording_is_needed(environment_id: str) -> bool:
    """Whether a metric of this environment reads observations, actions or rewards."""
    return any(metric.recorded for metric in episode_metrics().values() if metric.is_of(environment_id))


def special_metrics(environment_id: str) -> list[str]:
    """Names of the metrics of this environment that others have not."""
    return [name for name, metric in episode_metrics().items() if metric.environments and metric.is_of(environment_id)]
