"""dlrun plot kernel [kernel=[[…]]] [input=FILE]: what a convolution with one kernel does

  dlrun plot kernel                                     an edge kernel on a small matrix, with all numbers
  dlrun plot kernel kernel=[[-1,0,1],[-2,0,2],[-1,0,1]] matrix=[[0,0,9,9],[0,0,9,9],[0,0,9,9],[0,0,9,9]]
  dlrun plot kernel kernel=sobel_x input=cat.jpg        on a picture, as grey

  kernel=[[…],[…]]          ([[-1,-1,-1],[-1,8,-1],[-1,-1,-1]]) or one of edge laplace sobel_x sobel_y sharpen emboss
                            identity
  matrix=[[…],[…]]          (8×8 zeros with a square of tens in the middle)
  padding=valid|same        (valid) valid: no zeros around the input, the output is smaller; same: as many as keep it
  stride=N                  (1)
  out=FILE.png              (plots/kernel.png) beside it goes .json with the numbers

What networks call a convolution is a cross-correlation: the kernel lies on the input as it is written. In mathematics
it is turned by 180° first; the JSON has both.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from dlrun.commands.picture import HERE, leave, place, plain
from dlrun.data.decode import DAMAGED, grey, read_picture
from dlrun.errors import UserError, choices
from dlrun.options import read
from dlrun.registry import Count
from dlrun.viz.network.kernel import KERNELS, MATRIX, Applied, applied
from dlrun.viz.network.pictures.kernel import WRITTEN, in_numbers, on_picture

LARGEST = 512  # pixels of a side: a larger picture is made smaller


@dataclass(frozen=True, kw_only=True)
class Options:
    kernel: str = "edge"
    matrix: str | None = None
    input: str | None = None
    padding: Literal["valid", "same"] = "valid"
    stride: Count = 1
    out: Path | None = None


def run(words: Sequence[str]) -> int:
    """Draw and write; returns the exit code. Raises UserError."""
    options, _ = read(words, Options, "plot kernel")
    path = place(options.out, HERE / "kernel.png")
    if options.input is not None and options.matrix is not None:
        raise UserError("matrix: is one input, and input= names another; say one of them")
    kernel = _kernel(options.kernel)
    given, name, notes = _given(options)
    down, right = ((side - 1) // 2 for side in kernel.shape) if options.padding == "same" else (0, 0)
    if options.padding == "same" and not all(side % 2 for side in kernel.shape):
        raise UserError(f"padding: same needs a kernel with odd sides, got {_size(kernel)}; set padding=valid")
    if any(k > g + 2 * p for k, g, p in zip(kernel.shape, given.shape, (down, right), strict=True)):
        raise UserError(f"kernel: {_size(kernel)} is larger than the input, which is {_size(given)}")
    done = applied(given, kernel, (down, right), options.stride)
    title = "\n".join([_heading(options, name, done), *notes])
    draws = on_picture if options.input is not None or max(given.shape) > WRITTEN else in_numbers
    content = {
        "input": name,
        "notes": notes,
        "matrix": plain(given),
        "kernel": plain(kernel),
        "padding": [down, right],
        "stride": options.stride,
        "output": plain(done.output),
        "convolution": plain(done.convolved),
        "turning_the_kernel_changes_it": done.turns,
    }
    return leave(path, lambda: draws(title, done), content)


def _heading(options: Options, name: str, done: Applied) -> str:
    down, right = done.padding
    zeros = (
        f"zeros around it ({down} above and below, {right} at the sides)" if options.padding == "same" else "no padding"
    )
    turned = "turned by 180° the kernel is another: a convolution in mathematics gives other numbers"
    same = "turned by 180° the kernel is the same, so a convolution in mathematics gives the same"
    called = f"{options.kernel} kernel" if options.kernel in KERNELS else "kernel"
    return (
        f"{called} on {name}: cross-correlation, as in nn.Conv2d; {zeros}, stride {done.stride}\n"
        f"{turned if done.turns else same}"
    )


def _given(options: Options) -> tuple[np.ndarray, str, list[str]]:
    if options.input is not None:
        return _picture(Path(options.input).expanduser())
    if options.matrix is not None:
        return _matrix(options.matrix, "matrix"), "a matrix", []
    return np.array(MATRIX), "a bright square", []


def _picture(path: Path) -> tuple[np.ndarray, str, list[str]]:
    """Its luma, (H, W), 0 to 255."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except DAMAGED as error:
        why = getattr(error, "strerror", None) or "it is no picture that can be decoded"
        raise UserError(f"input: can't read {path} ({why})") from error
    share = min(1.0, LARGEST / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    pixels = np.empty((*size, 3), np.uint8)
    read_picture(path, pixels)
    notes = [] if share == 1 else [f"{height}×{width} pixels made {size[0]}×{size[1]}"]
    return grey(pixels)[..., 0].astype(np.float64), path.name, notes


def _kernel(text: str) -> np.ndarray:
    if text in KERNELS:
        return np.array(KERNELS[text], dtype=np.float64)
    if not text.lstrip().startswith("["):
        raise UserError(f"kernel: unknown kernel '{text}'{choices(text, KERNELS)}, or [[…],[…]] with its numbers")
    return _matrix(text, "kernel")


def _matrix(text: str, key: str) -> np.ndarray:
    """Rows of as many finite numbers each."""
    expected = f"{key}: expected rows of as many numbers each, as [[0,1],[1,0]]"
    try:
        rows = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{expected}, got '{text}'") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise UserError(f"{expected}, got '{text}'")
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"{expected}, got rows of {', '.join(str(len(row)) for row in rows)}")
    for value in (value for row in rows for value in row):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{expected}, got {value!r} in it")
        if abs(value) > 1e100:
            raise UserError(f"{key}: {value!r} is too large")
    return np.array(rows, dtype=np.float64)


def _size(matrix: np.ndarray) -> str:
    return f"{matrix.shape[0]}×{matrix.shape[1]}"
