"""One checkpoint is one dict of plain values and tensors, saved atomically and loaded without executing anything."""

from __future__ import annotations

import logging
import pickle
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlrun.atomic import atomic_write
from dlrun.errors import UserError

log = logging.getLogger("dlrun")

FORMAT = 2
FIRST_KEYS = {"format", "model", "ema", "optimizer", "scheduler", "scaler", "random", "progress", "config", "spec"}
# `run_id` is the W&B run's id too, `data` a fingerprint of each split, `machine` what bits depend on beside the config.
KEYS = FIRST_KEYS | {"run_id", "data", "machine"}


class DamagedError(UserError):
    """The file was a checkpoint once, or half of one: another of the same run may be whole."""


def save(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    """Write `state` (all of KEYS but the format) to `path`; the file is whole or it isn't there.

    The checkpoint that was there stays as `keep`. Raises OSError.
    """
    assert state.keys() == KEYS - {"format"}, state.keys() ^ (KEYS - {"format"})
    try:
        with atomic_write(path, keep) as file:
            torch.save({"format": FORMAT, **state}, file)
    except RuntimeError as error:  # torch's zip writer speaks of positions; the system's own word is behind that
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        raise reason or error from None


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, of an older format too, as today's.

    Raises UserError if it isn't there, needs code to load, or is newer than dlrun, and DamagedError if it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself doesn't look at the checksums
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum is wrong")
            if any(record.external_attr & 0x10 for record in archive.infolist()):
                # torch reads nothing of it then, says nothing, and takes what lay in memory for weights.
                raise zipfile.BadZipFile("a record is marked as a folder")
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}") from None
    except Exception as error:  # zipfile raises all sorts of them on a damaged file
        raise DamagedError(f"the checkpoint {path} is damaged: {_reason(error)}") from error
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"the checkpoint {path} is refused: it needs code to load, and may run any") from error
    except Exception as error:
        raise DamagedError(f"the checkpoint {path} can't be read: {_reason(error)}") from error
    if not isinstance(state, dict) or not state.keys() >= FIRST_KEYS:
        raise UserError(f"{path} isn't a checkpoint of dlrun")
    if state["format"] > FORMAT:
        raise UserError(f"{path} has format {state['format']}, this dlrun reads up to {FORMAT}; upgrade dlrun")
    return dict.fromkeys(KEYS) | state | {"format": FORMAT}  # format 1 had fewer


def load_newest(paths: Sequence[Path], device: torch.device | str = "cpu") -> tuple[dict[str, Any], Path] | None:
    """The first of `paths` that is whole, and its state; None if none of them is there.

    Raises DamagedError if all that are there are damaged, UserError as `load` does.
    """
    damaged: DamagedError | None = None
    there = [path for path in paths if path.exists()]
    if there and there[0] != paths[0]:
        log.warning("%s is missing", paths[0].name)
    for path in there:
        try:
            state = load(path, device)
        except DamagedError as error:
            log.error("%s", error)
            damaged = error
            continue
        if path != paths[0]:
            log.warning("going back to %s, of step %d", path.name, state["progress"]["step"])
        return state, path
    if damaged is not None:
        raise DamagedError("every checkpoint of this run is damaged: " + ", ".join(map(str, there)))
    return None


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def random_state() -> dict[str, Any]:
    """State of every global generator that training draws from (dropout, mainly), as plain values."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.array(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],  # type: ignore[arg-type]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put every global generator back to where `random_state` saw it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
