"""lightning_bc: clone experts in continuous control.

The map, from where actions act to what is read afterwards; a file imports only from stages to its left:

    environments -> episodes -> networks, normalization -> online -> strategies -> demonstrations -> callbacks -> results
    -> sweep -> cli

* ``environments``   what a policy acts in: batched MuJoCo physics, or any Gymnasium environment
* ``episodes``       ``play``: the one loop that every collection and evaluation uses, and the banks of episode seeds
* ``networks``       function approximators; ``normalization``: mean and scale of observations
* ``online``         what strategies that act while they learn share: soft actor-critic, replay, discriminators
* ``strategies``     how actions are modelled, one file each
* ``demonstrations`` what is learnt from: experts, files, collection, batches, the LightningDataModule
* ``callbacks``      the reward-over-time curve, progress
* ``results``        runs on disk, scores, videos, export, the report
* ``sweep``          the search of settings, on Optuna
* ``cli``            fit, validate, test, collect, play, export, sweep, report
"""

import importlib.metadata
import platform

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions that a figure depends on, recorded with every data file and run."""
    packages = ("mujoco", "gymnasium", "torch", "lightning")
    return {
        "lightning_bc": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }
