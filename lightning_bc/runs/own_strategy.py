"""The class of a run's strategy, where it is of the user's own code."""

import importlib

from lightning_bc.errors import InputError, UnknownStrategyError
from lightning_bc.runs import folders


def import_own(unknown: UnknownStrategyError) -> bool:
    """Import the module that lightning_logs/RUN/config.yaml, which the user's own ``fit`` wrote, names the strategy of.

    Returns:
        Whether there was one, so that the strategy is known now.

    Raises:
        InputError: the module cannot be imported here.
    """
    if unknown.run is None or not folders.config_path(folders.check_name(unknown.run, "the checkpoint")).is_file():
        return False
    model = (folders.read_config(unknown.run) or {}).get("model")
    module, _, name = str(model.get("class_path") if isinstance(model, dict) else None).rpartition(".")
    if not module or name != unknown.strategy:
        return False
    try:
        imported = importlib.import_module(module)
    except Exception as error:                                      # of the user's module, whatever it does
        raise InputError(
            f"{folders.config_path(unknown.run)}: names the strategy {module}.{name}, and {module} cannot be imported here "
            f"({type(error).__name__}: {error}). Give the command in the folder in which fit worked."
        ) from error
    return hasattr(imported, name)
