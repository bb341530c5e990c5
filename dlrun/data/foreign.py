"""Samples that belong to no data set: pictures, texts and rows of numbers → raw batches, exactly as a split gives them.

B samples of a batch, C channels, H×W pixels as the model takes them, L the longest text of a batch, F features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dlrun.data.decode import fit_picture, fit_pixels, grey, read_picture
from dlrun.data.tokens import encode, padded
from dlrun.errors import UserError, shortened
from dlrun.spec import DataSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST = float(np.finfo(np.float32).max)


class Pictures:
    """Paths, Pillow's images, or uint8 arrays (H, W) or (H, W, C), of any size → pixels (B, H, W, C) uint8.

    A model of one channel gets the luma of a colour, one of three gets a grey in all three; transparency is left out.
    """

    def __init__(self, spec: DataSpec):
        self.channels, self.height, self.width = spec.shape

    def listed(self, samples: Any) -> list[Any]:
        """Each sample by itself: `samples` may be one."""
        if isinstance(samples, str | os.PathLike | Image.Image):
            return [samples]
        if isinstance(samples, np.ndarray | Tensor):
            return [samples] if samples.ndim < 4 else list(samples)
        return _several(samples, "paths, images or uint8 arrays (H, W, C)")

    def check(self, sample: Any) -> np.ndarray:
        """Pixels (H, W, C). Raises UserError."""
        array = sample.numpy(force=True) if isinstance(sample, Tensor) else sample
        if self.channels not in (1, 3):
            if not isinstance(array, np.ndarray) or array.ndim != 3 or array.shape[2] != self.channels:
                raise UserError(f"expected a uint8 array (H, W, {self.channels}), got {_described(sample)}")
            return self._fitted(array, self.channels)
        if isinstance(array, np.ndarray):
            pixels = self._fitted(_colours(array), 3)
        else:
            pixels = np.empty((self.height, self.width, 3), np.uint8)
            self._read(sample, pixels)
        return grey(pixels) if self.channels == 1 else pixels

    def collate(self, checked: Sequence[np.ndarray]) -> Tensor:
        """(B, H, W, C) uint8."""
        return torch.from_numpy(np.stack(checked))

    def _read(self, sample: Any, pixels: np.ndarray) -> None:
        if isinstance(sample, Image.Image):
            fit_picture(sample, pixels)
        elif isinstance(sample, str | os.PathLike):
            read_picture(Path(sample), pixels)
        else:
            raise UserError(f"expected a path, an image or a uint8 array (H, W, C), got {_described(sample)}")

    def _fitted(self, array: np.ndarray, channels: int) -> np.ndarray:
        if array.dtype != np.uint8 or array.size == 0:
            raise UserError(f"expected uint8 pixels, 0 to 255, got {_described(array)}")
        pixels = np.empty((self.height, self.width, channels), np.uint8)
        fit_pixels(array, pixels)
        return pixels


class Texts:
    """Strings → token ids (B, L) int32, padded, by the vocabulary that the run learned."""

    def __init__(self, spec: DataSpec):
        if spec.tokenizer is None:
            raise UserError("the run's data has no vocabulary (its texts are token ids), so no text can be read by it")
        self.tokenizer: Tokenizer = _tokenizer(spec.tokenizer)
        self.tokenizer.enable_truncation(spec.shape[0])

    def listed(self, samples: Any) -> list[Any]:
        """Each sample by itself: `samples` may be one."""
        return [samples] if isinstance(samples, str) else _several(samples, "texts")

    def check(self, sample: Any) -> str:
        """The text. Raises UserError."""
        if not isinstance(sample, str):
            raise UserError(f"expected a text, got {_described(sample)}")
        if not _writable(sample):
            raise UserError("isn't UTF-8 text")
        return sample

    def collate(self, checked: Sequence[str]) -> Tensor:
        """(B, L) int32."""
        ids, lengths = encode(self.tokenizer, checked)
        return padded(ids, lengths, int(lengths.max()))


class Rows:
    """Rows of F numbers, as they were measured → standardised as in training, (B, F) float32."""

    def __init__(self, spec: DataSpec):
        self.features = spec.shape[0]
        self.mean = torch.tensor(spec.mean or (0.0,) * self.features, dtype=torch.float64)
        self.std = torch.tensor(spec.std or (1.0,) * self.features, dtype=torch.float64)

    def listed(self, samples: Any) -> list[Any]:
        """Each sample by itself: `samples` may be one."""
        if isinstance(samples, np.ndarray | Tensor):
            return [samples] if samples.ndim < 2 else list(samples)
        several = _several(samples, "rows of numbers")
        return [several] if several and isinstance(several[0], Real) else several

    def check(self, sample: Any) -> Tensor:
        """(F,) float32. Raises UserError."""
        values = sample.tolist() if isinstance(sample, np.ndarray | Tensor) else sample
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
            raise UserError(f"expected {self.features} numbers, got {_described(sample)}")
        if len(values) != self.features:
            raise UserError(f"expected {self.features} numbers, got {len(values)}")
        for position, value in enumerate(values, 1):
            number = isinstance(value, Real) and -LARGEST <= value <= LARGEST  # type: ignore[operator]
            if not number:  # nor is a NaN
                raise UserError(f"value {position}: expected a finite number, got {shortened(repr(value), 40)}")
        row = ((torch.tensor([float(v) for v in values], dtype=torch.float64) - self.mean) / self.std).float()
        if not row.isfinite().all():
            position = int(row.isfinite().logical_not().nonzero()[0]) + 1
            raise UserError(f"value {position}: {values[position - 1]!r} is too far from what the run was trained on")
        return row

    def collate(self, checked: Sequence[Tensor]) -> Tensor:
        """(B, F) float32."""
        return torch.stack(list(checked))


Reader = Pictures | Texts | Rows
READERS: dict[str, Callable[[DataSpec], Reader]] = {"image": Pictures, "text": Texts, "tabular": Rows}


def reader(spec: DataSpec) -> Reader:
    """Who reads samples of the data's modality: `listed`, then `check` each, then `collate` them."""
    return READERS[spec.modality](spec)


def raw_batch(read: Reader, samples: Sequence[Any]) -> Tensor:
    """The raw batch of all of them. Raises UserError, which says whose fault it is."""
    if not samples:
        raise UserError("expected at least one sample, got none")
    checked: list[Any] = []
    for position, sample in enumerate(samples):
        try:
            checked.append(read.check(sample))
        except UserError as error:
            raise UserError(f"sample {position}: {error}") from error
    return read.collate(checked)


def reason(error: UserError) -> str:
    """What is wrong with a sample, without its name."""
    cause = error.__cause__
    if isinstance(cause, UnidentifiedImageError):
        return "is no picture that can be decoded"
    if isinstance(cause, OSError) and cause.strerror:
        return f"can't be read ({cause.strerror})"
    return str(error) if cause is None else f"can't be decoded ({cause})"


def _several(samples: Any, expected: str) -> list[Any]:
    if isinstance(samples, str | bytes | Mapping) or not hasattr(samples, "__iter__"):
        raise UserError(f"expected {expected}, got {_described(samples)}")
    return list(samples)


def _colours(array: np.ndarray) -> np.ndarray:
    """(H, W), or (H, W, C) with a grey or three colours, and with or without transparency → (H, W, 3)."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise UserError(f"expected an array (H, W) or (H, W, C) with 1 to 4 channels, got {_described(array)}")
    return array[..., :3] if array.shape[2] > 2 else np.repeat(array[..., :1], 3, axis=2)


def _tokenizer(content: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises Exception itself
        raise UserError(f"the run's vocabulary can't be read: {' '.join(str(error).split())}") from error


def _writable(text: str) -> bool:
    """Whether it is text at all: no bytes that weren't UTF-8, which Python keeps as surrogates, and no NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray | Tensor):
        kind = "array" if isinstance(value, np.ndarray) else "tensor"
        return f"{kind} {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"{type(value).__name__} {shortened(repr(value), 60)}"
