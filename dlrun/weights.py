"""Files of weights, whoever saved them: what `init_from` can name."""

from __future__ import annotations

import logging
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlrun import checkpoint
from dlrun.errors import UserError, choices
from dlrun.runfolder import RunFolder

log = logging.getLogger("dlrun")

NESTED = ("state_dict", "model_state_dict", "model")  # where other programs keep the weights in their checkpoints


@dataclass(frozen=True)
class Weights:
    """Tensors by name, on the CPU; `averaged` and `spec` (plain values) are known of dlrun's own checkpoints."""

    file: Path
    tensors: dict[str, Tensor]
    averaged: bool = False
    spec: Mapping[str, Any] | None = None


def read(path: Path) -> Weights:
    """The weights of a run's folder (its best checkpoint, else the last) or of a file, without running code in it.

    A file is a checkpoint of dlrun (its averaged weights, if it has them: its best metric is of those), a state dict
    that torch saved, or a .safetensors. Raises UserError.
    """
    file = _file(path)
    content = _read(file)
    if isinstance(content, Mapping) and content.keys() >= checkpoint.FIRST_KEYS:
        return _own(content, file)
    return Weights(file, _state_dict(content, file))


def _file(path: Path) -> Path:
    if path.is_dir():
        folder = RunFolder(path)
        for file in (folder.best, folder.last):
            if file.exists():
                return file
        raise UserError(f"init_from: there is no {folder.best} and no last.pt beside it; name a run's folder or a file")
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = choices(path.name, siblings).partition(" (choose")[0]
        raise UserError(f"init_from: there is no file or folder {path}{near}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"init_from: can't read {path} ({error.strerror})") from None
    return path


def _read(file: Path) -> Any:
    """What is in the file, on the CPU; unpickles nothing but tensors and plain values."""
    try:
        if file.suffix == ".safetensors":
            return _load_safetensors(file)
        if zipfile.is_zipfile(file):  # torch itself doesn't look at the checksums
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile("a checksum is wrong")
        with warnings.catch_warnings(action="ignore"):  # of formats that it then refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch, zipfile, pickle and safetensors raise all sorts of them on a damaged file
        if (isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error)) or "TorchScript" in str(error):
            raise UserError(
                f"init_from: {file} is refused: it needs code to load, and may run any; "
                "where it comes from, save the model's state_dict() alone"
            ) from error
        raise UserError(f"init_from: {file} can't be read: it is damaged, or no file of weights") from error


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"init_from: reading {file} needs the safetensors library: pip install safetensors") from None
    return load_file(file)


def _own(state: Mapping[str, Any], file: Path) -> Weights:
    if state["format"] > checkpoint.FORMAT:
        raise UserError(
            f"init_from: {file} has format {state['format']}, this dlrun reads up to {checkpoint.FORMAT}; upgrade dlrun"
        )
    if state["ema"] is not None and "names" not in state["ema"]:
        log.warning("%s is of an older format: its averages have no names, so the last weights count", file)
    weights, averaged = judged(state)
    return Weights(file, weights, averaged, spec=state["spec"])


def judged(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], bool]:
    """The weights of a checkpoint that an evaluation takes, and whether they are the averaged ones."""
    weights: dict[str, Tensor] = dict(state["model"])
    if state["ema"] is None or "names" not in state["ema"]:
        return weights, False
    averages: dict[str, Tensor] = dict(zip(state["ema"]["names"], state["ema"]["average"], strict=True))
    # A tied tensor is averaged under its first name alone; its other names in the file share its memory.
    shared: dict[tuple[int, torch.Size], Tensor] = {
        (weights[name].data_ptr(), weights[name].shape): t for name, t in averages.items() if name in weights
    }
    return {name: shared.get((live.data_ptr(), live.shape), live) for name, live in weights.items()}, True


def _state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), content)
        tensors = {name: t for name, t in content.items() if isinstance(name, str) and isinstance(t, Tensor)}
        if tensors:
            return tensors
    raise UserError(f"init_from: {file} holds no weights: expected tensors by name, under {' or '.join(NESTED)} or not")
