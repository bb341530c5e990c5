"""One checkpoint is one dict of plain values and tensors, saved atomically and loaded without executing anything."""

from __future__ import annotations

import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlrun.atomic import atomic_write
from dlrun.errors import UserError

FORMAT = 1
KEYS = {"format", "model", "ema", "optimizer", "scheduler", "scaler", "random", "progress", "config", "spec"}


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (all of KEYS but the format) to `path`; the file is whole or it isn't there."""
    assert state.keys() == KEYS - {"format"}, state.keys() ^ (KEYS - {"format"})
    with atomic_write(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint. Raises UserError if it isn't there, is damaged, needs code to load, or is newer than dlrun."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself doesn't look at the checksums
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum is wrong")
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"the checkpoint {path} can't be read: it is damaged or needs code to load") from error
    except Exception as error:  # torch, zipfile and pickle raise all sorts of them on a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"the checkpoint {path} can't be read: {reason}") from error
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise UserError(f"{path} isn't a checkpoint of dlrun")
    if state["format"] > FORMAT:
        raise UserError(f"{path} has format {state['format']}, this dlrun reads up to {FORMAT}; upgrade dlrun")
    return state


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
