"""Search settings of ``fit``: grid, random or TPE, on Optuna, by any number of workers.

A trial is one setting. It is run once for each seed, as ``python -m lightning_bc fit`` in a process of its own, and

    value = (1/S) sum_seeds (return at the last point of the run's curve)

that is, the mean return of the last checkpoint on the selection bank. The maximum over training is never looked at, nor is
the test bank: each fit ends by playing it and writes results.json as any fit does, but no trial reads that file. The
setting with the highest value was in part lucky, so it is run anew with seeds that the search has not used, and these runs
alone are scored on the test bank. That is a second study, ``<name>-test-<trial>``, shared among the workers like the first.

Who does what is agreed upon through the numbers that the study's storage gives its trials: the k-th trial has the k-th
setting. A worker that dies leaves a trial whose heartbeat stops; another worker, or the same command given again, takes it
up, keeps the seeds that are done, and resumes the interrupted fit where its checkpoint is at hand.

Akiba et al. 2019, Optuna, https://arxiv.org/abs/1907.10902; Bergstra et al. 2011, Algorithms for Hyper-Parameter
Optimization (TPE), https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization
"""

from lightning_bc.sweep.command import sweep

__all__ = ["sweep"]
