"""Where workers agree on who does what: an Optuna study in a database, or in a journal file beside the logs."""

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from lightning_bc.aliases import Config
from lightning_bc.errors import InputError
from lightning_bc.runs import folders as runs

HEARTBEAT_SECONDS = 15
GRACE_SECONDS = 60
"""After so long without a heartbeat a trial's worker is taken for dead."""

Setting = Mapping[str, Any]
"""Values by the flag of fit, as typed or as drawn from a range."""

SWEEPS = runs.LOGS / "sweeps"


class SurplusError(Exception):
    """Another worker was quicker: there is nothing to do for this trial."""


class HeartbeatJournal(JournalStorage, BaseHeartbeat):
    """Optuna's journal file with the heartbeat that its databases have, as an attribute of the running trial."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Write the time down."""
        with suppress(UpdateFinishedTrialError):                    # it was taken for dead, as after a machine's sleep
            self.set_trial_system_attr(trial_id, "heartbeat", time.time())

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [trial._trial_id for trial in running if time.time() - _last_sign(trial) > GRACE_SECONDS]

    def get_heartbeat_interval(self) -> int:
        """Seconds between two."""
        return HEARTBEAT_SECONDS

    def get_heartbeat_stale_trial_callback(self) -> Callable[[optuna.Study, FrozenTrial], None]:
        """Put the trial back into the queue."""
        return take_up_again


def _last_sign(trial: FrozenTrial) -> float:
    """A trial that is taken up again brings its predecessor's heartbeat along: its own start counts too."""
    assert trial.datetime_start is not None
    return max(trial.datetime_start.timestamp(), trial.system_attrs.get("heartbeat", 0.0))


def take_up_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put a trial back into the queue, with its setting and what was measured of it."""
    RetryHeartbeatStaleTrialCallback()(study, copy.deepcopy(trial))  # Optuna would write into the storage's own copy


def open_storage(url: str | None, name: str) -> BaseStorage:
    """The database, or the journal file of the study ``name`` beside the logs.

    Raises:
        InputError: if the database cannot be reached.
    """
    if url is None:
        SWEEPS.mkdir(parents=True, exist_ok=True)
        return HeartbeatJournal(JournalFileBackend(storage_in_words(url, name)))
    shown = storage_in_words(url, name)
    try:
        return _open_database(url)
    except ImportError as error:
        raise InputError(
            f"--storage {shown}: its driver is not installed ({error.__cause__ or error}). For PostgreSQL: "
            "pip install psycopg2-binary, and a URL that begins with postgresql+psycopg2://."
        ) from error
    except (SQLAlchemyError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        raise InputError(
            f"--storage {shown}: cannot be reached ({reason}). Wanted a database that is up, as in "
            "postgresql+psycopg2://user:password@host/name; without --storage the study is kept in a file."
        ) from error


def _open_database(url: str) -> RDBStorage:
    for tables_exist in (False, True):
        try:
            return RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},              # a connection may have idled away during a long fit
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=take_up_again,
            )
        except SQLAlchemyError:
            if tables_exist:
                raise
            time.sleep(1)                                           # two first workers have made them at the same time
    raise AssertionError


def storage_in_words(url: str | None, name: str) -> str:
    """The journal file, or the database without its password.

    Raises:
        InputError: if it is no URL.
    """
    if url is None:
        return str(SWEEPS / f"{name}.journal")
    try:
        return make_url(url).render_as_string()
    except SQLAlchemyError as error:
        raise InputError(f"--storage {url}: wanted a URL, as in postgresql+psycopg2://user:password@host/name.") from error


def open_study(
    storage: BaseStorage,
    name: str,
    identity: Config,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    """Make the study, or join it.

    Args:
        identity: what is searched and how, as plain values; equal for all who work on the study.

    Raises:
        InputError: if a study of this name is another search.
    """
    study = optuna.create_study(
        storage=storage, study_name=name, sampler=sampler, pruner=pruner, direction="maximize", load_if_exists=True
    )
    if different := runs.differences(study.user_attrs.get("search", identity), identity):
        raise InputError(
            f"--name {name}: is another search; what differs (its, yours): {runs.in_words(different)}. Leave --name away, "
            "or choose another."
        )
    study.set_user_attr("search", dict(identity))
    return study


class Numbered(optuna.samplers.BaseSampler):
    """Gives the k-th trial the k-th setting, whoever runs it.

    Optuna's GridSampler may give two workers the same cell, and knows nothing of trials that are taken up again.
    """

    def __init__(self, setting: Callable[[int], Setting]) -> None:
        self.setting = setting

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is drawn jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is drawn jointly."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The setting's value."""
        return self.setting(place(study, trial.number)[0])[param_name]


def claims(study: optuna.Study) -> dict[tuple[int, int], FrozenTrial]:
    """The trials by (index of the setting, how often it was taken up again).

    Numbers are given by the storage, one after another, so all workers see the same order: the k-th trial that is not a
    repetition has index k. Where two workers have put the same trial back into the queue, the lower number counts.
    """
    found: dict[tuple[int, int], FrozenTrial] = {}
    indices: dict[int, int] = {}
    for trial in study.get_trials(deepcopy=False):
        history = RetryHeartbeatStaleTrialCallback.retry_history(trial)
        index = indices.setdefault(history[0] if history else trial.number, len(indices))
        found.setdefault((index, len(history)), trial)
    return found


def place(study: optuna.Study, number: int) -> tuple[int, int]:
    """Index and repetition of a trial.

    Raises:
        SurplusError: if another trial has its place.
    """
    for found, trial in claims(study).items():
        if trial.number == number:
            return found
    raise SurplusError
