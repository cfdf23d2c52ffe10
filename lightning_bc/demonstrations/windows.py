"""Windows: what a pair's episode holds before and after it, for strategies with a history or a horizon."""

import torch
from torch import Tensor


class Windows:
    """Cut windows out of episodes that lie one after another, without a copy of them.

    The window of a pair is the last ``history`` observations, its own at the end, and the next ``horizon`` actions, its own
    at the beginning. No window crosses an end of its episode: before the first row stands the first row again, behind the
    last row the last one, and a mask says which actions are within the episode.

    Args:
        lengths: pairs of each episode, (episodes,); they sum to the number of pairs.
        history: observations per window.
        horizon: actions per window.
        device: where the pairs lie.
    """

    def __init__(self, lengths: Tensor, history: int, horizon: int, device: torch.device) -> None:
        self.past = torch.arange(1 - history, 1, device=device)     # (history,)
        self.future = torch.arange(horizon, device=device)          # (horizon,)
        self.first = self.last = torch.empty(0, dtype=torch.int64, device=device)  # rows of each pair's episode, (pairs,)
        self.extend(lengths)

    def extend(self, lengths: Tensor) -> None:
        """Add episodes of ``lengths`` (episodes,) behind those that are there."""
        lengths = lengths.to(self.first.device, torch.int64)
        stops = len(self.first) + lengths.cumsum(0)
        self.first = torch.cat([self.first, (stops - lengths).repeat_interleave(lengths)])
        self.last = torch.cat([self.last, (stops - 1).repeat_interleave(lengths)])

    def cut(self, observations: Tensor, actions: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The windows of the pairs in ``rows`` (batch,).

        Returns:
            Observations (batch, history, observation_dim), actions (batch, horizon, action_dim), and which of these actions
            are within the episode, (batch, horizon) bool.
        """
        return self.cut_between(observations, actions, rows, self.first[rows], self.last[rows])

    def cut_between(
        self, observations: Tensor, actions: Tensor, rows: Tensor, first: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same where ``first`` and ``last`` say between which rows each window may reach, (batch,)."""
        rows, first, last = rows.unsqueeze(1), first.unsqueeze(1), last.unsqueeze(1)
        seen, planned = (rows + self.past).clamp(min=first), rows + self.future  # (batch, history), (batch, horizon)
        return observations[seen], actions[planned.clamp(max=last)], planned <= last
