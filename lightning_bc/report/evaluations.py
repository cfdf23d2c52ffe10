"""What ``evaluate`` wrote, as reference curves: the return of policies that were trained elsewhere."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lightning_bc.errors import InputError


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
        return evaluated(json.loads(Path(path).read_text())["evaluations"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is not a file of evaluations ({type(error).__name__}: {error}). One is written by "
            "python -m lightning_bc evaluate POLICY --output FILE.json"
        ) from error


GREYS = ("#555555", "#8a8a8a", "#b3b3b3")


def with_greys(references: Sequence[Evaluated]) -> list[tuple[Evaluated, str]]:
    """Each with a grey: colours are for what is compared."""
    return [(one, GREYS[number % len(GREYS)]) for number, one in enumerate(references)]


def draw_over(axes: Axes, references: Sequence[tuple[Evaluated, str]], along: bool = True) -> None:
    """Draw them, each in its colour, into ``axes``.

    A curve has a band of two standard errors over its episodes. What has no extent along the steps is a line, and so is
    everything with ``along`` false, at the return of the last policy.
    """
    for one, colour in references:
        style: Any = {"color": colour, "label": one.label, "zorder": 1.8}
        if one.is_curve and along:
            axes.plot(one.steps, one.means, marker=".", linewidth=1.6, **style)
            axes.fill_between(
                one.steps, one.means - 2 * one.errors, one.means + 2 * one.errors, color=colour, alpha=0.15, linewidth=0
            )
        else:
            axes.axhline(one.means[-1], linestyle=(0, (2, 2)), linewidth=1.4, **style)
