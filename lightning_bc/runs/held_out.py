"""results.json of a run without a simulator: how near its actions come to those of held-out episodes."""

from dataclasses import dataclass, field
from pathlib import Path

from lightning_bc import versions
from lightning_bc.aliases import Config
from lightning_bc.errors import InputError
from lightning_bc.runs import score
from lightning_bc.runs.results import Results, Source, built, content_of, plain
from lightning_bc.strategies.base import Strategy
from lightning_bc.strategies.offline.base import VALIDATION
from lightning_bc.texts import write_json


@dataclass(frozen=True)
class HeldOutResults:
    """What a run is and how well its policy predicts held-out actions; nothing was played, so there are no returns.

    Attributes:
        run: its name.
        checkpoint: file that is described.
        environment_id: what the data file says; may be empty.
        strategy: class name.
        held_out: figures on the held-out episodes, by the names of docs/metrics.md without ``validation/``; errors are in
            the actions' own units. In the file null where there is none.
        action_latency_ms: as in :class:`lightning_bc.runs.results.Results`, and so are all below.
        network_evaluations: per played action.
        parameters: of the strategy.
        optimizer_steps: behind the checkpoint.
        pairs: likewise.
        seconds: likewise.
        training_seconds: likewise.
        seed: of the run.
        data: what was learnt from, and how many episodes were held out.
        versions: of the packages.
        diverged: which number was not finite, and at which step, where training stopped for it; there are then no figures.
    """

    run: str
    checkpoint: str
    environment_id: str
    strategy: str
    held_out: dict[str, float] = field(metadata={"nullable": True})  # of a single pair no variance can be explained
    action_latency_ms: dict[str, float]
    network_evaluations: float
    parameters: int
    optimizer_steps: int
    pairs: int
    seconds: float
    training_seconds: float
    seed: int
    data: Source
    versions: dict[str, str]
    diverged: str | None = None

    @classmethod
    def of(
        cls,
        strategy: Strategy,
        environment_id: str,
        source: Config,
        path: Path,
        checkpoint: Config,
        diverged: str | None = None,
    ) -> "HeldOutResults":
        """Those of a checkpoint, which holds the figures that were measured when it was saved.

        Args:
            strategy: with the checkpoint's weights.
            environment_id: what the data file says; may be empty.
            source: the demonstrations, as the data module describes them.
            path: file of the checkpoint.
            checkpoint: what it holds; of a run that diverged what it would hold.
            diverged: what was not finite, and when.

        Raises:
            InputError: the checkpoint holds no such figures.
        """
        point = checkpoint.get("point", {})
        if not diverged and (missing := [name for name in VALIDATION if f"validation/{name}" not in point]):
            raise InputError(f"{path}: holds no held-out {missing[0]}; it was not trained with --rollouts.episodes 0.")
        strategy.eval()
        return cls(
            run=checkpoint["run"],
            checkpoint=str(path),
            environment_id=environment_id,
            strategy=type(strategy).__name__,
            held_out={} if diverged else {name: point[f"validation/{name}"] for name in VALIDATION},
            action_latency_ms={} if diverged else {str(batch): score.latency(strategy, batch) for batch in (1, 10)},
            network_evaluations=strategy.network_evaluations,
            parameters=sum(parameter.numel() for parameter in strategy.parameters()),
            optimizer_steps=int(point.get("optimizer_steps", 0)),
            pairs=int(point.get("pairs", 0)),
            seconds=float(point.get("seconds", 0)),
            training_seconds=float(point.get("training_seconds", 0)),
            seed=checkpoint["config"]["seed_everything"],
            data=built(Source, source),
            versions=versions(),
            diverged=diverged,
        )

    def write(self, path: str | Path) -> None:
        """Write results.json, whole or not at all."""
        write_json(path, plain(self))

    def in_words(self) -> str:
        """What the terminal shows."""
        if self.diverged:
            return f"no figures: {self.diverged}"
        return (
            f"{self.in_a_line()}\n"
            "no return: without a simulator nothing was played; evaluate and play take --env where there is one\n"
            f"checkpoint        {self.checkpoint}"
        )

    def in_a_line(self) -> str:
        """The figures alone."""
        if self.diverged:
            return "diverged"
        figures, episodes = self.held_out, self.data.validation_episodes
        return (
            f"held-out loss {figures['loss']:.4g}, error of the deterministic action: mean absolute "
            f"{figures['action_mean_absolute_error']:.4g}, root mean squared "
            f"{figures['action_root_mean_squared_error']:.4g} ({episodes} episode{'s' * (episodes != 1)})"
        )


def read_results(path: Path) -> Results | HeldOutResults:
    """Read a results.json of either kind.

    Raises:
        InputError: it is neither, lacks an entry, or cannot be read.
    """
    content = content_of(path)
    if "held_out" not in content:
        return Results.checked(path, content)
    try:
        results: HeldOutResults = built(HeldOutResults, content)
        if not results.diverged and (missing := sorted(VALIDATION.keys() - results.held_out.keys())):
            raise InputError(f"lacks held_out.{missing[0]}")
    except InputError as error:
        raise InputError(f"{path}: is damaged ({error}). Write it anew: python -m lightning_bc test --run RUN.") from error
    return results


def in_words(results: Results | HeldOutResults) -> str:
    """What the terminal shows of a finished run."""
    return results.in_words() if isinstance(results, HeldOutResults) else score.in_words(results)
