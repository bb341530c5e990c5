"""What an exported file says of itself: texts by name, readable without running anything of it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from dlrun import __version__
from dlrun.errors import UserError
from dlrun.spec import PAD, DataSpec

NAME = "dlrun.json"  # of the record in TorchScript's and torch.export's archives


def describe(spec: DataSpec, *, preprocess: bool = False, half: bool = False, **more: str) -> dict[str, str]:
    """All that a consumer has to know of the data; lists are JSON. `more` is what else is to be told."""
    shapes = {"text": ["batch", "length"], "image": ["batch", *spec.shape], "tabular": ["batch", *spec.shape]}
    shape, dtype = shapes[spec.modality], "int64" if spec.modality == "text" else "float32"
    if preprocess and spec.modality == "image":
        channels, height, width = spec.shape
        shape, dtype = ["batch", height, width, channels], "uint8"
    told = {
        "class_names": json.dumps(spec.class_names, ensure_ascii=False),
        "modality": spec.modality,
        "input_shape": json.dumps(shape),
        "input_dtype": dtype,
        "normalisation": normalisation(spec, preprocess),
        "mean": json.dumps(spec.mean),
        "std": json.dumps(spec.std),
        "preprocess": json.dumps(preprocess),
        "half": json.dumps(half),
        "dlrun_version": __version__,
    }
    if spec.modality == "text":
        told["pad_id"] = str(PAD)
        told["max_length"] = str(spec.shape[0])
        told["tokenizer"] = spec.tokenizer or ""
    return told | more


def normalisation(spec: DataSpec, preprocess: bool) -> str:
    """What is to be done with pixels (0 to 255, red first) or a row of numbers before the file gets them."""
    if preprocess or not spec.std:
        return "none"
    return "(x / 255 - mean) / std" if spec.modality == "image" else "(x - mean) / std"


def read(path: Path) -> dict[str, str]:
    """The metadata of a file that is no ONNX. Raises UserError if it can't be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum is wrong")
            wanted = [
                name
                for name in archive.namelist()
                if name.endswith(f"extra/{NAME}") or (is_package(archive) and name.endswith("_metadata.json"))
            ]
            texts = json.loads(archive.read(wanted[0])) if wanted else {}
    except Exception as error:  # zipfile raises all sorts of them on a damaged file
        raise UserError(f"{path} can't be read: {str(error).partition(chr(10))[0]}") from error
    return {str(key): str(value) for key, value in texts.items()}


def is_package(archive: zipfile.ZipFile) -> bool:
    """Whether it is AOTInductor's, which ends in .pt2 as torch.export's does."""
    return any("/aotinductor/" in name for name in archive.namelist())
