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
