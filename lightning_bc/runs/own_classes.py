"""The classes of a run's strategy and network, where they are of the user's own code."""

import importlib

from lightning_bc.errors import InputError, NotImportedError
from lightning_bc.runs import folders
from lightning_bc.strategies.registry import programs


def import_own(unknown: NotImportedError) -> bool:
    """Import the modules that lightning_logs/RUN/config.yaml, which the user's own ``fit`` wrote, names the classes of.

    Returns:
        Whether there was one, so that the classes may be known now.

    Raises:
        InputError: a module cannot be imported here.
    """
    if unknown.run is None or not folders.config_path(folders.check_name(unknown.run, "the checkpoint")).is_file():
        return False
    named = programs((folders.read_config(unknown.run) or {}).get("model"))
    own = [path for path in sorted(named) if {path, path.rpartition(".")[2]} & unknown.names]
    for path in own:
        module = path.rpartition(".")[0]
        try:
            importlib.import_module(module)
        except Exception as error:                                  # of the user's module, whatever it does
            raise InputError(
                f"{folders.config_path(unknown.run)}: names {path}, and {module} cannot be imported here "
                f"({type(error).__name__}: {error}). Give the command in the folder in which fit worked."
            ) from error
    return bool(own)
