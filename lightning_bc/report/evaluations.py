"""What ``evaluate`` wrote, as reference curves: the return of policies that were trained elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_bc.errors import InputError
from lightning_bc.texts import checked_json_of


@dataclass(frozen=True)
class Evaluated:
    """The policies of one folder, in the order of their steps; a single policy is one of one point.

    Attributes:
        label: the folder or file.
        environment_id: where they played.
        steps: of the agent that was trained, (points,); NaN where a policy does not say.
        means: mean returns, (points,).
        errors: standard errors over episodes, (points,).
        expert_return: what 1 of the normalized return is; NaN where it is not known.
    """

    label: str
    environment_id: str
    steps: np.ndarray
    means: np.ndarray
    errors: np.ndarray
    expert_return: float

    @property
    def is_curve(self) -> bool:
        """Whether it has an extent along the steps."""
        return len(set(self.steps.tolist())) > 1


def evaluated(entries: Sequence[Mapping[str, Any]]) -> list[Evaluated]:
    """Group the entries of ``evaluate``'s file by what was given on the command line and by environment."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["given"], entry["environment_id"]), []).append(entry)
    return [_evaluated(given, environment_id, group) for (given, environment_id), group in groups.items()]


def _evaluated(given: str, environment_id: str, group: Sequence[Mapping[str, Any]]) -> Evaluated:
    returns = np.array([entry["returns"] for entry in group], dtype=float)  # (points, episodes)
    order = np.argsort(steps := np.array([entry["step"] for entry in group], dtype=float), kind="stable")
    known = [entry["references"]["expert_return"] for entry in group if entry["references"]]
    return Evaluated(
        label=given,
        environment_id=environment_id,
        steps=steps[order],
        means=returns.mean(axis=1)[order],
        errors=(returns.std(axis=1, ddof=1) / np.sqrt(returns.shape[1]))[order] if returns.shape[1] > 1 else 0 * steps,
        expert_return=float(known[0]) if known else float("nan"),
    )


def read_evaluations(path: str | Path) -> list[Evaluated]:
    """Read a file of ``evaluate --output``.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    try:
        return evaluated(checked_json_of(path)["evaluations"])
    except InputError as error:
        raise InputError(f"{error}. Write it again with evaluate --output.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is not a file of evaluations ({type(error).__name__}: {error}). One is written by "
            "python -m lightning_bc evaluate POLICY --output FILE.json"
        ) from error


def within(one: Evaluated, along: bool, limit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn of it beside curves that end at ``limit``: x, mean returns and their standard errors, each (points,).

    Its points up to there; where ``along`` is false (the axis is no steps) or there are fewer than two of them, a level line
    at the return of the last policy.
    """
    inside = one.steps <= limit
    if along and one.is_curve and inside.sum() > 1:
        return one.steps[inside], one.means[inside], one.errors[inside]
    return np.array([0.0, limit]), one.means[[-1, -1]], one.errors[[-1, -1]]
