"""Replay: the transitions of the past, on the training device, in a ring."""

from dataclasses import replace

import torch
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.border import Border
from lightning_bc.errors import takes_state
from lightning_bc.strategies.contract import Transitions


class Replay:
    """The last ``capacity`` transitions, sampled uniformly with replacement.

    Args:
        capacity: transitions that are kept.
        observation_dim: size of an observation.
        action_dim: size of an action.
        device: where they lie.
    """

    def __init__(self, capacity: int, observation_dim: int, action_dim: int, device: torch.device | str = "cpu") -> None:
        self.capacity = capacity
        self._widths = [observation_dim, action_dim, 1, observation_dim, 1]
        self._rows = torch.zeros(capacity, sum(self._widths), device=device)
        self._added = 0                                             # ever, so that the ring's next place is known
        self._kept = torch.zeros((), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(self, transitions: Transitions) -> None:
        """Append ``transitions``; the oldest ones give way."""
        columns = [column if column.dim() == 2 else column.unsqueeze(-1) for column in transitions.columns]
        new = torch.cat(columns, dim=-1)[-self.capacity :]          # (batch, all widths)
        places = torch.arange(self._added, self._added + len(new), device=self._rows.device) % self.capacity
        self._rows[places] = new
        self._count(self._added + len(new))

    def sample(self, size: int) -> Transitions:
        """``size`` transitions, with replacement, drawn by torch's generator of the device."""
        # a recorded update cannot read a number that grows
        places = torch.randint(2**63 - 1, (size,), device=self._rows.device) % self._kept
        rows = self._rows[places]
        observations, actions, rewards, next_observations, terminated = rows.split(self._widths, dim=-1)
        return Transitions(observations, actions, rewards.squeeze(-1), next_observations, terminated.squeeze(-1))

    @property
    def observations(self) -> Tensor:
        """Those of all transitions, (transitions, observation_dim)."""
        return self._rows[: len(self), : self._widths[0]]

    def state_dict(self) -> StateDict:
        """All transitions, and where the ring stands."""
        return {"rows": self._rows[: len(self)].clone(), "added": self._added}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from there."""
        self._count(state["added"])
        self._rows[: len(self)] = state["rows"].to(self._rows.device)

    def _count(self, added: int) -> None:
        self._added = added
        self._kept.fill_(len(self))


def normalised(batch: Transitions, border: Border) -> Transitions:
    """``batch`` with its observations as agents see them."""
    observations, following = border.observe(batch.observations), border.observe(batch.next_observations)
    return replace(batch, observations=observations, next_observations=following)


def joined(first: Transitions, second: Transitions) -> Transitions:
    """Both, one behind the other."""
    return Transitions(*(torch.cat(columns) for columns in zip(first.columns, second.columns, strict=True)))
