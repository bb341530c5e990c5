"""From a sweep's folder to its Optuna study."""

from __future__ import annotations

import os
import warnings
from typing import Any

from dlrun.errors import UserError
from dlrun.passwords import masked
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.search.storage import absolute, open_storage, told_as_one_line

SECRET = "storage.url"  # in the sweep's folder, for the owner's eyes: an address with a password
ABSENT = "hydra/sweeper=optuna needs optuna: pip install 'dlrun[optuna]'"


def import_optuna() -> Any:
    """Optuna, and quiet. Raises UserError if it isn't installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError(ABSENT) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def keep_storage(folder: SweepFolder, given: str | None) -> str | None:
    """What sweep.json may say of the storage, so nothing secret; that goes into a file of its own."""
    if given is None:
        return None
    where = absolute(given)
    if masked(where) != where:
        file = os.open(folder.path / SECRET, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w") as secret:
            secret.write(where)
    return masked(where)


def storage_of(folder: SweepFolder) -> str:
    """Where the study of a sweep is kept. Raises UserError."""
    secret = folder.path / SECRET
    if secret.exists():
        return secret.read_text().strip()
    return str(folder.read()["study"]["storage"] or folder.journal.absolute())


def reach(where: str, name: str, sampler: Any = None, pruner: Any = None) -> Any:
    """The study `name`, which is there. Raises UserError."""
    optuna = import_optuna()
    storage = open_storage(where)
    with told_as_one_line(where):
        try:
            return optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        except KeyError:
            raise UserError(f"hydra.sweeper.study_name: no study '{name}' in {masked(where)}") from None
