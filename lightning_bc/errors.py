"""The errors that are meant for a person."""


class InputError(ValueError):
    """Something that the user gave cannot be used: a file, a flag, an environment.

    The message names it, the value found, the value wanted and the way out; the command line prints it alone, without a
    traceback.
    """


class NotFiniteError(InputError):
    """A policy answers something that is no finite number, or an environment does."""


class DivergedError(ArithmeticError):
    """Training has come to something that is no finite number.

    Args:
        step: the optimizer step.
        what: was not finite.
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"diverged at optimizer step {step:,}: {what}.")
        self.step, self.what = step, what


def needs_extra(what: str, extra: str, missing: str = "") -> InputError:
    """What to raise where an optional extra is not installed; the remedy is one for wheels and checkouts alike.

    Args:
        what: the command, flag or file that needs it.
        extra: its name in setup.cfg.
        missing: the modules that were looked for, where several may be.
    """
    needed = f"{missing}, of " if missing else ""
    return InputError(f"{what} needs {needed}the optional extra {extra}: pip install 'lightning_bc[{extra}]'")
