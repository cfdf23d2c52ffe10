"""The ``evaluate`` command: files of policies, played by the one evaluator."""

import json
import math
import re
from pathlib import Path
from typing import Any

from lightning_bc import versions
from lightning_bc.api import Evaluation, Policy, evaluate, load
from lightning_bc.api.evaluation import Bank
from lightning_bc.bounds import PositiveInt
from lightning_bc.demonstrations.experts import check_fits, expert_sha256
from lightning_bc.environments import limit_episodes, resolved
from lightning_bc.episodes import TEST_EPISODES
from lightning_bc.errors import InputError
from lightning_bc.files import new_file, write_text

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
    max_episode_steps: PositiveInt | None = None,
) -> None:
    """Play checkpoints and experts, and print what their episodes earn.

    What does not know the returns of random actions and of the expert is measured against those that the first policy of
    the same environment knows.

    Args:
        policies: checkpoints, names of runs, experts as ``collect`` takes them, or folders of these, whose files are played
            in the order of their steps.
        env: Gymnasium id; default: what each checkpoint says.
        episodes: how many each plays: the first of the bank.
        bank: of episode seeds: "test" for final figures alone; "selection" for choosing, a checkpoint for example.
        deterministic: false plays samples.
        output: a JSON file to write everything to; by default none.
        max_episode_steps: where an environment has no time limit, steps after which an episode is cut off; default 1000.

    Raises:
        InputError: a policy cannot be loaded, does not say its environment or does not fit it, or the file exists.
    """
    path = None if output is None else new_file(output)
    env = None if env is None else resolved(env)
    loaded = [policy for given in policies for policy in _load_all(given, env)]
    environments = [env or _environment_of(policy) for policy in loaded]
    for environment_id in dict.fromkeys(environments if max_episode_steps else []):
        limit_episodes(environment_id, int(max_episode_steps or 0))
    pairs = [*zip(loaded, environments, strict=True)]
    for policy, environment_id in pairs:
        check_fits(policy, str(policy.path), environment_id)        # refused before the first episode

    known = {environment_id: policy.references for policy, environment_id in reversed(pairs) if _knows_expert(policy)}
    width = max(len(str(policy.path)) for policy in loaded)
    names = {"policy": "policy", "step": "step", "mean": "return", "std": "std", "normalized": "normalized"}
    print(_COLUMNS.format(width=width, **names, failed="failed", length="steps"))
    rows = []
    for policy, environment_id in pairs:
        references = policy.references if _knows_expert(policy) else known.get(environment_id)
        result = evaluate(
            policy, environment_id, episodes, deterministic=deterministic, references=references, bank=bank
        )
        print(_row(policy, result, width), flush=True)
        rows.append(_entry(policy, result))
    kind = "deterministic" if deterministic else "sampled"
    print(f"{episodes} {bank}-bank episodes each of {', '.join(dict.fromkeys(environments))}, {kind} actions")
    if path is not None:
        write_text(path, json.dumps({"versions": versions(), "evaluations": rows}, indent=1, allow_nan=False) + "\n")
        print(f"results {path}")


def _load_all(given: str, env: str | None) -> list[Policy]:
    """The policy that is meant, or those of a folder in the order of their steps."""
    files = [file for file in Path(given).glob("*") if file.suffix in ENDINGS] if Path(given).is_dir() else []
    if not files:
        return [load(given, environment_id=env)]
    return sorted((load(file, environment_id=env) for file in sorted(files)), key=_step)


def _step(policy: Policy) -> int:
    """Lightning's step of a checkpoint, else the last number in the file's name."""
    if policy.step is not None:
        return policy.step
    return int((re.findall(r"\d+", Path(policy.path or "").stem) or [0])[-1])


def _environment_of(policy: Policy) -> str:
    if policy.environment_id is None:
        raise InputError(f"{policy.path}: does not say of which environment it is. Give --env.")
    return policy.environment_id


def _knows_expert(policy: Policy) -> bool:
    return policy.references is not None and policy.references.has_expert


def _row(policy: Policy, result: Evaluation, width: int) -> str:
    return _COLUMNS.format(
        width=width,
        policy=str(policy.path),
        step="" if policy.step is None else policy.step,
        mean=f"{result.mean:.1f}",
        std=f"{result.std:.1f}",
        normalized=f"{result.normalized:.3f}" if math.isfinite(result.normalized) else "",
        failed=f"{result.failed:.0%}" if math.isfinite(result.failed) else "",
        length=f"{result.lengths.mean():.0f}",
    )


def _entry(policy: Policy, result: Evaluation) -> dict[str, Any]:
    """Plain values; what is not known is null."""
    assert policy.path is not None                                  # as it was loaded
    numbers = {"return_mean": result.mean, **result.metrics}
    return {
        "policy": str(policy.path),
        "sha256": expert_sha256(policy.path),
        "strategy": type(policy.strategy).__name__,
        "step": policy.step,
        "environment_id": result.environment_id,
        "bank": result.bank,
        "deterministic": result.deterministic,
        "metrics": {name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "references": result.references.as_dict() if result.references.has_expert else None,
        "returns": result.returns.tolist(),
        "lengths": result.lengths.tolist(),
    }
