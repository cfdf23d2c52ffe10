"""lightning_bc: imitation learning in continuous control.

The map of the package. A file imports only from stages to its left; names that share a stage do not import each other
(setup.cfg has the same stages for import-linter):

    errors, aliases, stopping -> bounds, files -> texts -> environments, players -> ensembling, episodes
    -> numpy_kernels, rollout_workers -> frozen -> acting, border, networks, ranks, references -> episode_metrics
    -> strategies -> demonstrations -> runs -> callbacks, api -> arguments, loggers, trainer_flags, report -> tools
    -> fit_help -> training -> study -> cli

What each is, in the same order:

    __init__.py         this map; the versions that are recorded with every data file and run
    errors.py           InputError, for what a person gave and cannot be used; OtherVersionError, of checkpoints
    aliases.py          names of types: StateDict, Config
    stopping.py         SIGINT and SIGTERM
    bounds.py           bounds of settings as types, which --help shows: PositiveInt, ClosedUnitInterval, ...
    files.py            atomic writes, checksums
    texts.py            JSON and YAML
    environments/       what a policy acts in: batched MuJoCo tasks, or any Gymnasium environment, behind one interface
    players.py          who chooses actions while episodes are played; the memory of policies
    ensembling.py       how overlapping chunks of actions are averaged
    episodes.py         play, the one loop that plays episodes; the banks of episode seeds
    rollout_workers.py  processes that play episodes beside the one that trains
    numpy_kernels.py    NumPy's functions for torch's kernels
    frozen.py           a policy as a short list of NumPy calls, which acts fast on few observations
    acting.py           recording that list of a policy
    border.py           observations normalised, actions scaled to [-1, 1] and back: here and nowhere else
    networks.py         function approximators, chosen by --model.network: MLP, LSTM, ...
    ranks.py            processes that train one policy together: what they do alike
    references.py       the returns of random actions and of the expert: 0 and 1 of the normalized return
    episode_metrics/    what is measured of episodes, one file per metric
    strategies/         how actions are modelled, one file per strategy
        contract.py     what strategies and data ask of each other
        optimizers.py   the default optimizer
        outputs.py      whether networks answer with as many numbers as they must
        recorded.py     an update that is recorded once and replayed: on a GPU as a CUDA graph
        cpu_graph.py    and on the CPU as a list of kernels in fixed memory
        base.py         what every strategy shares: Strategy
        offline/        strategies that learn from demonstrations alone
        online/         strategies that act in the environment while they learn, and what these are made of
        registry.py     finds every strategy in the two folders
    demonstrations/     what is learnt from: files and their formats, experts, collection, batches, the LightningDataModule
    runs/               runs on disk: their folders, curves and results; the score; what a study plans, and results.csv
    callbacks/          what happens while training: the curve, checkpoints, averaged weights, DAgger, TensorBoard's tabs
    api/                what a script of one's own calls: load, evaluate, collect; see docs/python.md
    arguments.py        the parser: an unknown key is refused with the nearest known name
    trainer_flags.py    what of Lightning's Trainer is set here, and what is refused
    loggers.py          where a run's metrics go
    report/             from runs on disk: tables, statistics, curves, the HTML page
    tools/              export of policies, videos, evaluation of files, inspection and conversion of data files
    fit_help.py         what fit --help prints
    training.py         fit, validate and test, from LightningCLI
    study/              many fits side by side: studies, and sweeps, the search of settings
    cli.py              the commands: fit, validate, test, evaluate, collect, inspect, convert, play, export, study, sweep,
                        report
    __main__.py         python -m lightning_bc
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_bc.api import Evaluation, Policy, collect, evaluate, load, write_demonstrations
    from lightning_bc.callbacks import DAgger, Rollouts
    from lightning_bc.demonstrations import Demonstrations, Trajectories
    from lightning_bc.demonstrations import read as read_demonstrations
    from lightning_bc.errors import InputError

__version__ = "0.1.0"

__all__ = [
    "DAgger",
    "Demonstrations",
    "Evaluation",
    "InputError",
    "Policy",
    "Rollouts",
    "Trajectories",
    "__version__",
    "collect",
    "evaluate",
    "load",
    "read_demonstrations",
    "versions",
    "write_demonstrations",
]

_LATE = {
    **dict.fromkeys(("Evaluation", "Policy", "collect", "evaluate", "load", "write_demonstrations"), "api"),
    **dict.fromkeys(("DAgger", "Rollouts"), "callbacks"),
    **dict.fromkeys(("Demonstrations", "Trajectories", "read_demonstrations"), "demonstrations"),
    "InputError": "errors",
}
"""Names by the module that is imported when they are first used: torch and Gymnasium take seconds to import."""

_IN_MODULE = {"read_demonstrations": "read"}
"""Those that are called otherwise there."""


if not TYPE_CHECKING:  # else every name, also a misspelt one, would seem to be there

    def __getattr__(name: str) -> Any:
        """What scripts use, imported late."""
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), _IN_MODULE.get(name, name))
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Those too, for completion."""
    return sorted({*globals(), *__all__})


if "gymnasium" in sys.modules:  # gymnasium.make("lightning_bc:Gates-v0") imports this package to find the id registered
    importlib.import_module(f"{__name__}.environments")


def versions() -> dict[str, str]:
    """Versions that a figure depends on, recorded with every data file and run."""
    import importlib.metadata  # here, since a command begins 0.1 s earlier without
    import platform

    packages = ("mujoco", "gymnasium", "torch", "lightning")
    return {
        "lightning_bc": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }
