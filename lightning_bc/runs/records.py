"""What runs left on disk: configuration, results and curve, read from their folders and from nothing else."""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from lightning_bc.references import References
from lightning_bc.runs.folders import CONFIG_FILE, RESULTS_FILE, started_at

AXES = ("optimizer_steps", "environment_steps", "expert_queries", "seconds")
RETURN = "rollout/return_mean"
EVENT_FILES = "events.out.tfevents.*"

_USED = {
    "strategy": str,
    "environment_id": str,
    "score": float,
    "failed_episodes": float | None,
    "normalized": float | None,
    "references": dict,
    "action_latency_ms": dict,
    "returns": list,
    "optimizer_steps": int,
    "environment_steps": int,
    "expert_queries": int,
    "training_seconds": float,
    "seed": int,
    "data": dict,
}
"""What is read of results.json."""


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        folder: lightning_logs/<run>.
        config: its config.yaml.
        results: its results.json; empty for a run that has not ended.
        curve: each of ``AXES`` and the mean return, (points,) each; empty where no point could be read.
    """

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    curve: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether it has a score."""
        return bool(self.results)

    @property
    def seed(self) -> int:
        """The seed of training."""
        return self.config["seed_everything"]

    @property
    def references(self) -> References:
        """What its returns are measured against."""
        read = self.results["references"]
        unknown = math.nan if read["expert_return"] is None else read["expert_return"]
        return References(read["random_return"], unknown, read["expert_source"])

    def over(self, axis: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The curve over one of ``AXES``: x, strictly rising, and mean return, (points,) each; None where there is none.

        Where several points have the same x the last counts: it is the return that had been reached for that much.
        """
        if not len(self.curve.get(RETURN, ())):
            return None
        x = self.curve[axis]
        last = np.append(np.diff(x) > 0, True)
        return x[last], self.curve[RETURN][last]


def read_records(logs: Path) -> tuple[list[Record], dict[str, str]]:
    """Read every run under ``logs``, oldest first.

    Returns:
        The runs, and for each file that cannot be used what is wrong with it. A run without a readable configuration or
        with a broken results.json is left out; one whose events are broken has no curve.
    """
    patterns = (CONFIG_FILE, RESULTS_FILE, EVENT_FILES)
    folders = {path.parent for pattern in patterns for path in logs.rglob(pattern)}
    records, broken = [], {}
    for folder in sorted(folders, key=lambda folder: (started_at(folder.name), folder)):
        path = folder / CONFIG_FILE
        try:
            config = _read_config(path)
            path = folder / RESULTS_FILE
            results = _read_results(path) if path.exists() else {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            broken[str(path)] = _in_a_line(error)
            continue
        curve: dict[str, np.ndarray] = {}
        try:
            path = folder
            values: dict[str, dict[int, float]] = {}
            for path in sorted(folder.glob(EVENT_FILES)):
                _read_events(path, values)
            curve = _aligned(values, results)
        except (OSError, ValueError, DecodeError) as error:
            broken[str(path)] = _in_a_line(error)
        records.append(Record(folder, config, results, curve))
    return records, broken


def _read_config(path: Path) -> dict[str, Any]:
    config = yaml.load(path.read_text(), yaml.CSafeLoader)
    if not isinstance(config, dict) or not {"seed_everything", "model", "data", "trainer", "env"} <= config.keys():
        raise ValueError("is not the configuration of a run")
    return config


def _read_results(path: Path) -> dict[str, Any]:
    results = json.loads(path.read_text())
    if not isinstance(results, dict):
        raise ValueError("is not the results of a run")
    for key, wanted in _USED.items():
        if key not in results:
            raise ValueError(f"lacks {key}; python -m lightning_bc test writes it anew")
        if not isinstance(results[key], wanted | int if wanted is float else wanted):
            raise ValueError(f"{key} is {results[key]!r}; python -m lightning_bc test writes it anew")
    return results


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# Events. TensorBoard's EventAccumulator passes over damaged records without a word, and checks the sum of every record in
# Python; here what is damaged is said, and only the records of the curve are checked.


def _read_events(path: Path, curve: dict[str, dict[int, float]]) -> None:
    """Add the points of one event file to ``curve``: for each tag the values by step.

    Raises:
        ValueError, DecodeError: if the file is damaged.
    """
    wanted = {RETURN, *AXES}
    for data, checksum in _records(path.read_bytes()):
        event = Event.FromString(data)
        if event.session_log.status == SessionLog.START:            # a resumed run: what came later was of the killed one
            for values in curve.values():
                for step in [step for step in values if step >= event.step]:
                    del values[step]
        for value in event.summary.value:
            if value.tag in wanted:
                if masked_crc32c(data) != checksum:
                    raise ValueError("is damaged: a record does not have its checksum")
                curve.setdefault(value.tag, {})[event.step] = value.simple_value


def _records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """The records of an event file, each with its checksum: length (8 bytes), its checksum (4), data, checksum (4).

    A kill can cut the last one off; it is left out.
    """
    position = 0
    while position + 12 <= len(content):
        length, checksum = struct.unpack_from("<QI", content, position)
        end = position + 12 + length
        if end + 4 > len(content):
            if masked_crc32c(content[position : position + 8]) != checksum:
                raise ValueError(f"is damaged at byte {position:,} of {len(content):,}")
            return
        yield content[position + 12 : end], *struct.unpack_from("<I", content, end)
        position = end + 4


def _aligned(curve: dict[str, dict[int, float]], results: dict[str, Any]) -> dict[str, np.ndarray]:
    """The values of every tag at the steps that all of them have.

    Raises:
        ValueError: if the run has ended and its curve has not.
    """
    steps = sorted(set.intersection(*(set(curve.get(tag, ())) for tag in (RETURN, *AXES))))
    aligned = {tag: np.array([values[step] for step in steps]) for tag, values in curve.items()}
    if results and (not steps or not math.isclose(aligned["optimizer_steps"][-1], results["optimizer_steps"], rel_tol=1e-6)):
        last = aligned["optimizer_steps"][-1] if steps else 0
        raise ValueError(f"the curve ends at optimizer step {last:,.0f} of {results['optimizer_steps']:,}")
    return aligned
