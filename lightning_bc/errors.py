"""The error that is meant for a person."""


class InputError(ValueError):
    """Something that the user gave cannot be used: a file, a flag, an environment.

    The message names it, the value found, the value wanted and the way out; the command line prints it alone, without a
    traceback.
    """
