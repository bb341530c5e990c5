"""The formats: a name → who writes it, and how the file ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dlrun.exporting import aoti, onnx, pt2, torchscript


@dataclass(frozen=True)
class Format:
    write: Callable[..., None]  # (model, spec, path, metadata, inputs)
    suffix: str
    require: Callable[[], Any] = lambda: None  # raises UserError without what writing takes
    arranges: bool = False  # it lays pixels out by itself
    note: str = ""


FORMATS = {
    "onnx": Format(onnx.write, ".onnx", onnx.require, arranges=True),
    "torchscript": Format(
        torchscript.write, ".pt", note="TorchScript is deprecated by PyTorch: format=pt2 replaces it, or format=onnx"
    ),
    "pt2": Format(pt2.write, ".pt2"),
    "aoti": Format(
        aoti.write,
        ".pt2",
        aoti.require,
        arranges=True,
        note="this is machine code: for this kind of processor, and this version of torch",
    ),
}
