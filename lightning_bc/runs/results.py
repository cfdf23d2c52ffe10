"""results.json: what one run is and how well its policy plays, each entry with its unit and meaning."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lightning_bc.episodes import TEST_EPISODES
from lightning_bc.errors import InputError
from lightning_bc.references import References
from lightning_bc.runs.folders import RESULTS_FILE
from lightning_bc.strategies.contract import Metric
from lightning_bc.texts import checked_json_of, write_json


def _of(unit: str, meaning: str, nullable: bool = False) -> dict[str, object]:
    """What docs/metrics.md says of a field. A number that is ``nullable`` is NaN in Python and null in the file."""
    return {"unit": unit, "meaning": meaning, "nullable": nullable}


@dataclass(frozen=True)
class Source:
    """Demonstrations that a run learnt from."""

    path: str = field(metadata=_of("", "file or dataset as given"))
    sha256: str = field(
        metadata=_of("", "of the file; of a Minari dataset, of its observations and actions; of several files, of theirs")
    )
    training_pairs: int = field(
        metadata=_of("pairs", "after `--data.episodes`, `--data.first_steps`, `--data.subsample` and the split")
    )
    training_episodes: int = field(metadata=_of("episodes", "likewise"))
    validation_episodes: int = field(metadata=_of("episodes", "held out"))
    actions: str | None = field(metadata=_of("", "sampled, deterministic or exploratory; null where the file does not say"))
    expert: str | None = field(metadata=_of("", "file of the expert, or package.module:function; or null"))
    expert_sha256: str | None = field(metadata=_of("", "of that file, or of that module's; or null"))
    seed: int | None = field(metadata=_of("", "of the first collected episode, or null"))
    versions: dict[str, str] | None = field(metadata=_of("", "with which the file was collected, or null"))
    files: dict[str, str] = field(
        default_factory=dict, metadata=_of("", "SHA-256 of each file by its path, where there are several; else empty")
    )


@dataclass(frozen=True)
class Results:
    """What a run is and how well its policy plays: the 100 episodes of the test bank, with one checkpoint.

    The attributes are the keys of results.json, and their metadata the rows of docs/metrics.md.
    """

    run: str = field(metadata=_of("", "name of the run: strategy-data-seed-UTC time-4 hex digits"))
    checkpoint: str = field(metadata=_of("", "file that was scored"))
    environment_id: str = field(metadata=_of("", "Gymnasium id"))
    strategy: str = field(metadata=_of("", "class name"))
    score: float = field(metadata=_of("reward", "mean of `returns`; null where the run diverged", nullable=True))
    score_std: float = field(
        metadata=_of("reward", "their standard deviation, sqrt((1/100) sum_i (R_i - score)^2)", nullable=True)
    )
    normalized: float = field(metadata=_of("1", "(score - random_return) / (expert_return - random_return)", nullable=True))
    failed_episodes: float = field(
        metadata=_of(
            "share, 0 to 1", "(1/100) times the number of i with R_i < expert_return - abs(expert_return) / 2", nullable=True
        )
    )
    sampled_score: float = field(metadata=_of("reward", "mean of `sampled_returns`", nullable=True))
    sampled_normalized: float = field(metadata=_of("1", "the same scale for `sampled_score`", nullable=True))
    references: References = field(metadata=_of("", "what `normalized` is measured against:"))
    action_latency_ms: dict[str, float] = field(
        metadata=_of(
            "ms",
            "median time of one call, per played action, by number of observations in the call: `1` and `10`",
            nullable=True,
        )
    )
    network_evaluations: float = field(
        metadata=_of("", "evaluations of the network per played deterministic action", nullable=True)
    )
    parameters: int = field(metadata=_of("", "number of the strategy's parameters"))
    test_seeds: list[int] = field(metadata=_of("", "first and last seed of the test bank"))
    returns: list[float] = field(
        metadata=_of("reward", "R_i of each of the 100 episodes, deterministic actions, in the order of the seeds")
    )
    sampled_returns: list[float] = field(metadata=_of("reward", "the same with sampled actions"))
    optimizer_steps: int = field(metadata=_of("steps", "behind the checkpoint"))
    environment_steps: int = field(metadata=_of("environment steps", "played to learn from; 0 where demonstrations are all"))
    expert_queries: int = field(metadata=_of("pairs", "labels that an expert was asked for while learning"))
    pairs: int = field(metadata=_of("pairs", "training pairs behind the checkpoint, counted again in each pass"))
    seconds: float = field(metadata=_of("s", "wall-clock time behind the checkpoint's last point, with playing"))
    training_seconds: float = field(metadata=_of("s", "the same without playing"))
    seed: int = field(metadata=_of("", "`--seed_everything` of the run"))
    data: Source | None = field(metadata=_of("", "what was learnt from; empty where that was no demonstrations:"))
    versions: dict[str, str] = field(
        metadata=_of("", "of lightning_bc, python, mujoco, gymnasium, torch and lightning when the score was played")
    )
    search: str | None = field(
        default=None, metadata=_of("", "name of the `sweep` that tried the run; such a run is in no table; else null")
    )
    diverged: str | None = field(
        default=None,
        metadata=_of("", "which number was not finite, and at which step, where training stopped for it; else null"),
    )
    metrics: dict[str, float] = field(
        default_factory=dict,
        metadata=_of("", "every metric of episodes by its name, over the same episodes as `returns`", nullable=True),
    )
    sampled_metrics: dict[str, float] = field(
        default_factory=dict, metadata=_of("", "the same over those of `sampled_returns`", nullable=True)
    )

    @property
    def episodes(self) -> int:
        """How many episodes of the test bank the score is over; those of a run that diverged count as failed."""
        return TEST_EPISODES if self.diverged else len(self.returns)

    def as_dict(self) -> dict[str, object]:
        """Plain values as JSON has them: null for NaN, an empty object for no demonstrations."""
        content = plain(self)
        return {**content, "data": content["data"] or {}}

    def write(self, path: str | Path) -> None:
        """Write results.json, whole or not at all."""
        write_json(path, self.as_dict())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Results":
        """The results that :meth:`as_dict` made plain. Keys that are not known here are passed over.

        Raises:
            InputError: a key is missing or its value is of another type.
        """
        results: Results = built(cls, {**content, "data": content.get("data", {}) or None})
        if math.isnan(results.score) and not results.diverged:
            raise InputError("score is 'None', wanted float")
        return results

    @classmethod
    def read(cls, path: str | Path) -> "Results":
        """Read a results.json.

        Raises:
            InputError: it is not one, lacks an entry, or cannot be read.
        """
        return cls.checked(path, content_of(path))

    @classmethod
    def checked(cls, path: str | Path, content: dict[str, Any]) -> "Results":
        """Those of which ``content`` was read from a results.json.

        Raises:
            InputError: it lacks an entry.
        """
        try:
            return cls.from_dict(content)
        except InputError as error:
            raise InputError(f"{path}: {error}. {_ANEW}") from error


def content_of(path: str | Path) -> dict[str, Any]:
    """What a results.json of either kind holds.

    Raises:
        InputError: it cannot be read, is not what was written, or is no dictionary.
    """
    try:
        content = checked_json_of(path)
    except InputError as error:
        raise InputError(f"{error}. {_ANEW}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not the results of a run. {_ANEW}")
    return content


_ANEW = "Write it anew: python -m lightning_bc test --run RUN"


def results_name(checkpoint: Path) -> str:
    """The file for a checkpoint's results: a run's score is that of its last checkpoint, another one's is kept apart."""
    return RESULTS_FILE if checkpoint.stem == "last" else f"results-{checkpoint.stem}.json"


def entries(cls: Any = Results, prefix: str = "") -> Iterator[tuple[str, Metric]]:
    """Every key of results.json, nested ones dotted, with its unit and meaning."""
    hints = get_type_hints(cls)
    for entry in fields(cls):
        yield prefix + entry.name, Metric(entry.metadata["unit"], entry.metadata["meaning"])
        for part in (hints[entry.name], *get_args(hints[entry.name])):
            if is_dataclass(part):
                yield from entries(part, f"{prefix}{entry.name}.")


def plain(value: Any) -> Any:
    """What JSON can hold of results and their parts: dictionaries of dataclasses, and null for what is no finite number."""
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def built(kind: Any, value: Any, name: str = "", nullable: bool = False) -> Any:
    """``value``, read from JSON, as a ``kind``: a dataclass, list, dict, union or plain type.

    Raises:
        InputError: an entry is missing or of another type.
    """
    if is_dataclass(kind) and isinstance(value, Mapping):
        build: Any = kind
        hints, given = get_type_hints(kind), {}
        for entry in fields(kind):
            dotted = f"{name}.{entry.name}".lstrip(".")
            if entry.name in value:
                null = entry.metadata.get("nullable", False)
                given[entry.name] = built(hints[entry.name], value[entry.name], dotted, null)
            elif entry.default is MISSING and entry.default_factory is MISSING:
                raise InputError(f"lacks {dotted}")
        return build(**given)
    if kind is float:
        if value is None and nullable:
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(kind, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        return built(next(part for part in get_args(kind) if part is not NoneType), value, name, nullable)
    elif get_origin(kind) is list and isinstance(value, list):
        if kind == list[float] and all(type(inner) is float for inner in value):
            return value                                            # of 100 returns, without a name for each
        return [built(get_args(kind)[0], inner, f"{name}[{number}]", nullable) for number, inner in enumerate(value)]
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        return {key: built(get_args(kind)[1], inner, f"{name}.{key}", nullable) for key, inner in value.items()}
    elif isinstance(kind, type) and isinstance(value, kind) and not isinstance(value, bool):
        return value
    wanted = kind.__name__ if isinstance(kind, type) else str(kind)
    raise InputError(f"{name} is {str(value)[:40]!r}, wanted {wanted}")
