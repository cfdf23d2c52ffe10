"""The ``evaluate`` command: files of policies, played by the one evaluator."""

import importlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_bc import versions
from lightning_bc.api import Evaluation, Policy, evaluate, load
from lightning_bc.api.evaluation import Bank
from lightning_bc.api.policy import environment_of
from lightning_bc.bounds import PositiveInt
from lightning_bc.demonstrations.experts import check_fits, expert_sha256
from lightning_bc.demonstrations.experts.callables import is_name
from lightning_bc.environments import limit_episodes, resolved
from lightning_bc.episode_metrics import special_metrics
from lightning_bc.episodes import TEST_EPISODES
from lightning_bc.errors import InputError, needs_extra
from lightning_bc.files import new_file
from lightning_bc.texts import write_json

PICTURES = (".svg", ".png", ".pdf")
ENDINGS = (".ckpt", ".pt", ".pth", ".zip")
"""Of the files in a folder that are taken for policies."""

_COLUMNS = "{policy:{width}}  {step:>9}  {mean:>9}  {std:>8}  {normalized:>10}  {failed:>6}  {length:>6}"


def evaluate_files(
    policies: list[str],
    env: str | None = None,
    episodes: PositiveInt = TEST_EPISODES,
    bank: Bank = "test",
    deterministic: bool = True,
    output: str | None = None,
    plot: str | None = None,
    max_episode_steps: PositiveInt | None = None,
) -> None:
    """Play checkpoints and experts, and print what their episodes earn.

    What does not know the returns of random actions and of the expert is measured against those that the first policy of
    the same environment knows.

    Args:
        policies: checkpoints, names of runs, experts as ``collect`` takes them, or folders of these, whose files are played
            in the order of their steps.
        env: Gymnasium id; default: what each checkpoint says, and where one environment is said, that for all.
        episodes: how many each plays: the first of the bank.
        bank: of episode seeds: "test" for final figures alone; "selection" for choosing, a checkpoint for example.
        deterministic: false plays samples.
        output: a JSON file to write everything to, which ``report --references`` draws; by default none.
        plot: a picture to write (.svg, .png or .pdf): the return over the steps of training of each folder's policies, and a
            line for each single policy; needs one environment and the extra ``report``; by default none.
        max_episode_steps: where an environment has no time limit, steps after which an episode is cut off; default: as in
            the runs of the policies, else 1000.

    Raises:
        InputError: a policy cannot be loaded, does not say its environment or does not fit it, or a file exists; or the
            episodes of two runs in one environment were of different lengths.
    """
    path = None if output is None else new_file(output)
    picture = None if plot is None else _new_picture(plot)
    env = None if env is None else resolved(env)
    given = _load(policies, env)
    loaded = [one.policy for one in given]
    said = _said_by(given)                                          # goes for files that do not say it, too
    environments = [
        env or policy.environment_id or (said if policy.not_imported in (None, said) else None) or environment_of(policy)
        for policy in loaded
    ]
    if picture is not None and len(set(environments)) > 1:
        several = ", ".join(sorted(set(environments)))
        raise InputError(f"--plot {plot}: a picture shows one environment, and these are {several}.")
    pairs = [*zip(loaded, environments, strict=True)]
    limits = {one: max_episode_steps or _limit_of([policy for policy, env in pairs if env == one]) for one in environments}
    for environment_id, limit in limits.items():
        if limit is not None:
            limit_episodes(environment_id, limit)
    for policy, environment_id in pairs:
        check_fits(policy.strategy, str(policy.path), environment_id)  # refused before the first episode

    known = {environment_id: policy.references for policy, environment_id in reversed(pairs) if _knows_expert(policy)}
    width = max(len(str(policy.path)) for policy in loaded)
    names = {"policy": "policy", "step": "step", "mean": "return", "std": "std", "normalized": "normalized"}
    print(_COLUMNS.format(width=width, **names, failed="failed", length="steps"))
    rows, scales = [], dict[tuple[str, float, float], list[str]]()
    for one, environment_id in zip(given, environments, strict=True):
        policy = one.policy
        references = policy.references if _knows_expert(policy) else known.get(environment_id)
        result = evaluate(
            policy,
            environment_id,
            episodes,
            deterministic=deterministic,
            references=references,
            bank=bank,
            max_episode_steps=limits[environment_id],
        )
        print(_row(one, result, width), flush=True)
        if special := special_metrics(environment_id):
            print("  " + ", ".join(f"{name.replace('_', ' ')} {result.metrics[name]:.4f}" for name in special))
        rows.append(_entry(one, result))
        if references is not None and references.has_expert:
            scale = (environment_id, references.random_return, references.expert_return)
            scales.setdefault(scale, []).append(str(policy.path))
    if len(scales) > len({environment_id for environment_id, *_ in scales}):
        for (_, random_return, expert_return), names_on_it in scales.items():
            print(f"normalized, 0 is {random_return:.6g} and 1 is {expert_return:.6g}: {', '.join(names_on_it)}")
    kind = "deterministic" if deterministic else "sampled"
    print(f"{episodes} {bank}-bank episodes each of {', '.join(dict.fromkeys(environments))}, {kind} actions")
    if path is not None:
        write_json(path, {"versions": versions(), "evaluations": rows})
        print(f"results {path}")
    if picture is not None:
        from lightning_bc.report.evaluations import evaluated
        from lightning_bc.report.plots import draw_evaluations

        draw_evaluations(picture, evaluated(rows))
        print(f"picture {picture}")


def _new_picture(plot: str) -> Path:
    """The file to draw; that it can be drawn is known before anything is played."""
    try:
        importlib.import_module("lightning_bc.report.plots")
    except ModuleNotFoundError as error:
        raise needs_extra("--plot", "report", str(error.name)) from error
    path = new_file(plot, "--plot")
    if path.suffix not in PICTURES:
        raise InputError(f"--plot {plot}: wanted a file ending in {', '.join(PICTURES)}.")
    return path


@dataclass(frozen=True)
class _Given:
    """A policy to play.

    Attributes:
        name: what the command line named: a file, a run or a folder.
        policy: what was loaded.
        step: of its training; None where nothing says.
    """

    name: str
    policy: Policy
    step: int | None


def _load(policies: Sequence[str], env: str | None) -> list[_Given]:
    """All that are meant; functions, which act in any environment, come last, for the one that the others say."""
    found: dict[str, list[_Given]] = {}
    for name in sorted(policies, key=is_name):
        said = _said_by([one for given in found.values() for one in given]) if is_name(name) else None
        found[name] = _load_all(name, env or said)
    return [one for name in policies for one in found[name]]


def _said_by(given: Sequence[_Given]) -> str | None:
    """The one environment that policies say; None where they say none or several."""
    said = {one.policy.environment_id for one in given} - {None}
    return said.pop() if len(said) == 1 else None


def _load_all(name: str, env: str | None) -> list[_Given]:
    """The policy that is meant, or those of a folder in the order of their steps."""
    files = sorted(file for file in Path(name).glob("*") if file.suffix in ENDINGS) if Path(name).is_dir() else []
    if not files:
        policy = load(name, environment_id=env)
        return [_Given(name, policy, policy.step)]
    steps = _steps_in(files)
    loaded = [(load(file, environment_id=env), step) for file, step in zip(files, steps, strict=True)]
    given = [_Given(name, policy, step if policy.step is None else policy.step) for policy, step in loaded]
    return sorted(given, key=lambda one: -1 if one.step is None else one.step)


def _steps_in(files: list[Path]) -> list[int] | list[None]:
    """The last number in each name, as in rl_model_10000_steps.zip, where the names differ in nothing else."""
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", file.name.removesuffix(file.suffix)) for file in files]
    apart = {match and (match[1], match[3]) for match in found}
    if len(files) < 2 or len(apart) > 1 or None in apart:
        return [None] * len(files)
    return [int(match[2]) for match in found if match]


def _limit_of(policies: list[Policy]) -> int | None:
    """Steps after which episodes were cut off in the runs of ``policies``, of one environment; None where none says it.

    Raises:
        InputError: in two runs after different ones.
    """
    said = {policy.max_episode_steps: policy.path for policy in policies if policy.max_episode_steps is not None}
    if len(said) > 1:
        words = " and ".join(f"those of {path} after {limit} steps" for limit, path in said.items())
        raise InputError(f"episodes were cut off, {words}. Say which it shall be with --max_episode_steps.")
    return next(iter(said), None)


def _knows_expert(policy: Policy) -> bool:
    return policy.references is not None and policy.references.has_expert


def _row(given: _Given, result: Evaluation, width: int) -> str:
    decimals = result.decimals
    return _COLUMNS.format(
        width=width,
        policy=str(given.policy.path),
        step="" if given.step is None else given.step,
        mean=f"{result.mean:.{decimals}f}",
        std=f"{result.std:.{decimals}f}",
        normalized=f"{result.normalized:.3f}" if math.isfinite(result.normalized) else "",
        failed=f"{result.failed:.0%}" if math.isfinite(result.failed) else "",
        length=f"{result.lengths.mean():.0f}",
    )


def _entry(given: _Given, result: Evaluation) -> dict[str, Any]:
    """Plain values; what is not known is null."""
    policy = given.policy
    assert policy.path is not None                                  # as it was loaded
    numbers = {"return_mean": result.mean, **result.metrics}
    return {
        "given": given.name,
        "policy": str(policy.path),
        "sha256": expert_sha256(policy.path),
        "strategy": type(policy.strategy).__name__,
        "step": given.step,
        "environment_id": result.environment_id,
        "bank": result.bank,
        "deterministic": result.deterministic,
        "metrics": {name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "references": result.references.as_dict() if result.references.has_expert else None,
        "returns": result.returns.tolist(),
        "lengths": result.lengths.tolist(),
    }
