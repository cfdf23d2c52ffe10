"""How ``inspect`` and ``convert`` read a data file: as ``fit`` does."""

from dataclasses import dataclass

from lightning_bc.demonstrations import Trajectories, read
from lightning_bc.demonstrations.fitting import check_fits, in_order_of_space, with_usual_episodes
from lightning_bc.environments import EnvironmentSpaces


@dataclass(frozen=True)
class DataFlags:
    """The flags ``--data.*`` of ``fit`` that say what of a file is read.

    Attributes:
        observation_keys: which observations are put side by side, KEY [KEY ...], in this order, where the file keeps
            several; where it keeps one array of an environment with dictionaries, the order of its columns.
    """

    observation_keys: list[str] | None = None

    @property
    def in_words(self) -> list[str]:
        """The same as words of a command line."""
        return ["--data.observation_keys", *self.observation_keys] if self.observation_keys else []


AS_IT_IS = DataFlags()


def read_of(file: str, spaces: EnvironmentSpaces | None, data: DataFlags) -> Trajectories:
    """Demonstrations of an environment, where it is known: in the order of its space, in its usual episodes.

    Raises:
        InputError: the file cannot be read, or does not fit the environment.
    """
    of_space = () if spaces is None else tuple(spaces.observation_parts)
    made = read(file, observation_keys=data.observation_keys or (), environment_keys=of_space)
    return in_environment(made, spaces)


def in_environment(made: Trajectories, spaces: EnvironmentSpaces | None) -> Trajectories:
    """Demonstrations as those of an environment, where it is known.

    Raises:
        InputError: they do not fit it.
    """
    if spaces is None:
        return made
    made = in_order_of_space(made, spaces)
    check_fits(made, spaces)
    return with_usual_episodes(made, spaces)
