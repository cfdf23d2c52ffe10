"""The ``inspect`` command: what a data file holds, what may be wrong with it, and the command that learns from it."""

import math
import shlex
import textwrap
from collections.abc import Iterator, Sequence

import gymnasium
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lightning_bc.demonstrations import peek
from lightning_bc.demonstrations.action_noise import Noise, action_noise
from lightning_bc.demonstrations.advice import advised
from lightning_bc.demonstrations.fitting import beyond_bounds, seem_scaled
from lightning_bc.demonstrations.quality import Findings, Outlier, constant_dimensions, groups_of_equal, outliers
from lightning_bc.demonstrations.trajectories import Trajectories
from lightning_bc.environments import EnvironmentSpaces, UnusableEnvironmentError, environment_spaces
from lightning_bc.tools.reading import AS_IT_IS, DataFlags, read_of

MOST_LISTED = 10
"""Outlying values and constant dimensions per line; further ones are counted."""

POOR_SHARE = 0.05
"""Where at least this share of the episodes fails, measured by their median, choosing the best ones is advised."""

UNKNOWN_ENVIRONMENT = (
    "the environment is not known: write its Gymnasium id for ENVIRONMENT_ID, module:Id-v0 for one of your own. With --env, "
    "inspect compares the bounds of its actions too. Where no environment stands for the robot, take --rollouts.episodes 0 "
    "in its place."
)

WIDTH = 125

CLASSIC = ("MountainCarContinuous-v0", "Pendulum-v1")
"""Environments beside the MuJoCo ones of version 5 that a file without a name is compared with."""


def inspect(file: str, env: str | None = None, data: DataFlags = AS_IT_IS) -> None:
    """Print what a file of demonstrations holds, what may be wrong with it, and the command that learns from it.

    Args:
        file: a file, a folder or minari:DATASET_ID, as ``fit --data.path`` takes it.
        env: Gymnasium id of its environment; default: what the file says.
        data: what of the file is read, as ``fit`` has it.

    Raises:
        InputError: the file cannot be read, or does not fit that environment.
    """
    with tqdm(total=6, desc="reading", delay=1, disable=None, leave=False) as bar:  # on a terminal, for what takes longer

        def done(following: str) -> None:
            bar.update()
            bar.set_description(following)

        said = peek(file).environment_id
        spaces, environment = _environment(said, env)
        done("values")
        made = read_of(file, spaces, data)
        found = Findings(made)
        done("ranges")
        table = [*_ranges("observation", made.observations), *_ranges("action", made.actions, spaces)]
        done("outliers")
        values = [
            *_outlying("observations", found.outlying_observations),
            *_outlying("actions", outliers(made.actions)),
        ]
        done("copies")
        copies = _copies(found)
        done("noise")
        noise = action_noise(made, found.copies)
        warned, flags = _advice(found, spaces)
        if env is None and said is None:
            warned.append(UNKNOWN_ENVIRONMENT)
        bar.update()
    lines = [
        ("file", file),
        ("read as", made.origin.layout + (f"; {made.origin.note}" if made.origin.note else "")),
        ("environment", environment or _unknown(said, made)),
        ("pairs", f"{len(made):,}: {made.observations.shape[1]} observation and {made.actions.shape[1]} action dimensions"),
        *_episodes(made, spaces),
        ("expert", _expert(made)),
        ("noise of actions", _noise(noise)),
        ("constant", _constant(made)),
        ("repeated", copies),
        ("outlying values", _listed(values, "none") + " (rule: docs/your-data.md)"),
        ("not finite", "none (a file with NaN or Inf is refused)"),
    ]
    facts = [_hanging(f"{name:18}", words) for name, words in lines]
    told = [_hanging("warning: ", words) for words in warned]
    advice = advised(len(made), noise)
    command = _command(file, advice.config, env or said, [*data.in_words, *flags])
    learn = f"Learn from it, with {advice.config} since {advice.why}:"
    print("\n".join([*facts, "", *table, "", *told, *[""] * bool(told), learn, f"    {command}"]))


def _environment(said: str | None, env: str | None) -> tuple[EnvironmentSpaces | None, str]:
    """Spaces of the environment, where it is known and here, and in words how it is known; none where it is not."""
    if env is not None:
        return environment_spaces(env), f"{env}, as {'the file' if said else '--env'} says"
    if said is None or ":" in said:                                 # a file alone does not have a module imported
        return None, ""
    try:
        return environment_spaces(said), f"{said}, as the file says"
    except UnusableEnvironmentError as error:
        return None, f"{said}, which is not here: {error}"


def _unknown(said: str | None, made: Trajectories) -> str:
    """What is known of an environment whose spaces are not."""
    if said is not None:
        return f"{said}, as the file says; give it with --env to have its module imported and bounds compared"
    fitting = ", ".join(fitting_environments(made.observations.shape[1], made.actions.shape[1]))
    return f"the file does not say; the dimensions fit {fitting or 'none of Gymnasium (MuJoCo v5 and classic control)'}"


def fitting_environments(observation_dim: int, action_dim: int) -> list[str]:
    """The ids of Gymnasium's MuJoCo environments of version 5, and of ``CLASSIC``, with these dimensions."""
    known = [name for name, spec in gymnasium.registry.items() if spec.version == 5 and "mujoco" in str(spec.entry_point)]
    found = []
    for name in sorted((*known, *CLASSIC)):
        try:
            spaces = environment_spaces(name)
        except UnusableEnvironmentError:                            # its physics are not installed
            continue
        if (spaces.observation_dim, spaces.action_dim) == (observation_dim, action_dim):
            found.append(name)
    return found


def _episodes(made: Trajectories, spaces: EnvironmentSpaces | None) -> Iterator[tuple[str, str]]:
    """Lengths, returns and ends of the episodes, a line each."""
    if not made.knows_episodes:
        yield "episodes", "unknown: nothing says where they end"
        yield "returns", f"unknown{_stated_return(made)}"
        return
    lengths = made.lengths
    yield "episodes", f"{len(lengths):,}; steps: min {lengths.min()}, median {lengths.median()}, max {lengths.max()}"
    returns = made.returns
    if made.rewards is None:
        yield "returns", f"no rewards{_stated_return(made)}"
    else:
        mean, std = returns.mean(), returns.std(correction=0)
        yield "returns", f"mean {mean:,.6g}, std {std:,.6g}, min {returns.min():,.6g}, max {returns.max():,.6g}"
    said, ended = made.terminated is not None, made
    if not said and spaces is None:
        yield "ends", "terminated or cut off: the file does not say, and the environment is not known"
        return
    if not said and spaces is not None:
        ended = made.with_terminations_inferred(spaces.max_episode_steps, spaces.can_terminate)
    elif spaces is not None:
        ended = made.with_time_limits(spaces.max_episode_steps, spaces.can_terminate)
    assert ended.terminated is not None
    terminated = int(ended.terminated.sum())
    how = "as the file says" if said else "inferred: an episode shorter than the time limit terminated, the last did not"
    if made.terminated is not None and not torch.equal(made.terminated, ended.terminated):
        how += ", but for the time limit"
    if not said and spaces is not None and spaces.can_terminate is False:
        how = "inferred: this environment always plays to its time limit"
    yield "ends", f"{terminated:,} terminated, {len(lengths) - terminated:,} cut off ({how})"


def _stated_return(made: Trajectories) -> str:
    mean = made.origin.mean_return
    return "" if mean is None else f"; mean {mean:,.6g}, as the file says"


def _expert(made: Trajectories) -> str:
    origin = made.origin
    stated = [origin.expert or "the file does not say"]
    if origin.actions:
        stated.append(f"{origin.actions} actions")
    if origin.expert_returns:
        stated.append(f"return on the test bank {np.mean(origin.expert_returns):,.6g}")
    if origin.random_returns:
        stated.append(f"random actions {np.mean(origin.random_returns):,.6g}")
    return ", ".join(stated)


def _noise(noise: Noise) -> str:
    if noise.verdict == "unknown":
        return f"cannot be told: {noise.how}"
    if noise.verdict == "noisy":
        words = f"a noisy expert: about {noise.share:.0%} of the actions' standard deviation"
    else:
        words = f"a deterministic expert: at most {noise.share:.1%} of the actions' standard deviation"
    return f"{words} (estimated from {noise.how})"


def _constant(made: Trajectories) -> str:
    columns = (("observation", made.observations), ("action", made.actions))
    return _listed([f"{name} {place}" for name, column in columns for place in constant_dimensions(column)], "no dimension")


def _copies(found: Findings) -> str:
    """How much of the file is there more than once."""
    made = found.made
    rows = len(made) - int(groups_of_equal(torch.cat([made.observations, made.actions], dim=1)).max()) - 1
    words = f"{rows:,} of {len(made):,} pairs equal an earlier one" if rows else "no pair"
    return words + (f", among them {len(found.copies)} whole episodes" if found.copies else "")


def _outlying(name: str, values: Sequence[Outlier]) -> list[str]:
    return [f"{name}[{value.row}] dimension {value.dimension}: {value.value:g}" for value in values]


def _listed(found: Sequence[str], none: str) -> str:
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return "; ".join(found[:MOST_LISTED]) + more if found else none


def _ranges(name: str, columns: Tensor, spaces: EnvironmentSpaces | None = None) -> Iterator[str]:
    """A table of a heading and a row per dimension; with ``spaces``, also the shares on and beyond the bounds."""
    heading = f"{name:14}{'min':>12}{'mean':>12}{'std':>12}{'max':>12}"
    yield heading if spaces is None else f"{heading}{'bounds':>16}{'on them':>10}{'beyond':>10}"
    beyond = None if spaces is None else beyond_bounds(columns, spaces)
    for place in range(columns.shape[1]):
        column = columns[:, place].double() + 0.0                   # no -0
        std, mean = torch.std_mean(column, correction=0)
        low, high = column.aminmax()
        row = f"{place:>{len(name)}}{'':{14 - len(name)}}{low:>12.5g}{mean:>12.5g}{std:>12.5g}{high:>12.5g}"
        if spaces is not None and beyond is not None:
            bounds = (float(spaces.action_low[place]), float(spaces.action_high[place]))
            near = torch.stack([(column - bound).abs() for bound in bounds]).amin(dim=0) <= 1e-5 * (bounds[1] - bounds[0])
            row += f"{f'{bounds[0]:.4g} to {bounds[1]:.4g}':>16}{_share(near):>10}{_share(beyond[:, place]):>10}"
        yield row


def _share(which: Tensor) -> str:
    share = float(which.double().mean())
    return "0" if share == 0 else f"{share:.1%}" if share >= 0.001 else "< 0.1%"


def _advice(found: Findings, spaces: EnvironmentSpaces | None) -> tuple[list[str], list[str]]:
    """What to be warned of, and the flags of ``fit`` without which the file is refused."""
    made = found.made
    warned, flags = [concern.removeprefix(f"{made.origin.path}: ") for concern in found.concerns()], []
    if spaces is not None:
        outside = beyond_bounds(made.actions, spaces).any(dim=1)
        in_units_of_one = bool(made.actions.abs().max() <= 1)
        if outside.any():
            flag, why = (
                ("scale_actions", "brings them back, if they were recorded in [-1, 1], where all of them lie")
                if in_units_of_one
                else ("clip_actions", "moves them to the bounds, as an environment does that clips")
            )
            flags += [f"--data.{flag}", "true"]
            warned.append(f"actions of {_share(outside)} of the pairs are beyond the bounds. --data.{flag} true {why}.")
        elif seem_scaled(made, spaces):
            warned.append(
                "all actions lie in [-1, 1], and the bounds are wider. If they were recorded in [-1, 1], add "
                "--data.scale_actions true."
            )
    if not made.knows_episodes:
        flags += ["--data.validation_fraction", "0"]
        warned.append(
            "where episodes end is unknown, so nothing can be held out; say how long they are with --data.episode_length N."
        )
        return warned, flags
    too_long = 0 if spaces is None else int((made.lengths > (spaces.max_episode_steps or made.lengths.max())).sum())
    if spaces is not None and too_long:
        warned.append(
            f"{too_long} of {len(made.lengths)} episodes are longer than the environment's time limit of "
            f"{spaces.max_episode_steps} steps. Either they were recorded with another limit, or rows of several episodes "
            "are taken for one."
        )
    if made.rewards is not None and len(made.lengths) > 1 and made.origin.random_returns:
        returns, median = made.returns, float(made.returns.median())
        worst = float(np.mean(made.origin.random_returns))          # without it returns have no scale
        far_below = (median + worst) / 2 if worst < median else -math.inf
        poor = float((returns < far_below).double().mean())
        if poor >= POOR_SHARE:
            warned.append(
                f"{poor:.0%} of the episodes return less than {far_below:,.4g}, and the median one {median:,.4g}. "
                f"Where these failed, rather than began in a harder place, --data.top_fraction "
                f"{max(0.05, round(1 - poor, 2)):g} learns from the others alone."
            )
    return warned, flags


def _hanging(first: str, words: str) -> str:
    """``words`` behind ``first``, and further lines of them indented as far; no path is broken."""
    wrapper = textwrap.TextWrapper(WIDTH, first, " " * len(first), break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(words)


def _command(file: str, config: str, environment: str | None, flags: Sequence[str]) -> str:
    program = ["python", "-m", "lightning_bc", "fit", "--config", config]
    return shlex.join([*program, "--data.path", file, "--env", environment or "ENVIRONMENT_ID", *flags])
