"""Noise of any shape and size, for benchmarks and smoke tests."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge

from dlrun.data.source import ArraySplit, DataOptions, Source, Splits, TokenSplit
from dlrun.errors import OptionError
from dlrun.registry import Count, datasets
from dlrun.spec import DataSpec, Modality


@datasets.register("fake")
def fake(
    common: DataOptions,
    *,
    modality: Modality = "image",
    shape: list[Count] | None = None,
    num_classes: Annotated[int, Ge(2)] = 10,
    size: Count = 1000,
    vocab_size: Annotated[int, Ge(3)] | None = None,
    sequence_length: Count | None = None,
) -> Source:
    """Random inputs with random labels, of any modality, shape and size.

    `shape` is [channels, height, width] of an image or [features] of a table row; a text has `vocab_size` and
    `sequence_length`. The test split has `size` // 5 samples.
    """
    if num_classes > size:
        raise OptionError("num_classes", f"expected at most data.size={size}, got {num_classes}")
    names = tuple(f"class {label}" for label in range(num_classes))
    if modality == "text":
        if shape is not None:
            raise OptionError("shape", "a text has none; set data.sequence_length and data.vocab_size")
        words, length = vocab_size or 10_000, sequence_length or 128
        spec = DataSpec("text", (length,), names, vocab_size=words)
    else:
        for option, value in (("vocab_size", vocab_size), ("sequence_length", sequence_length)):
            if value is not None:
                raise OptionError(option, f"only a text has it, and data.modality is {modality}")
        rank = {"image": 3, "tabular": 1}[modality]
        shape = shape or {"image": [1, 28, 28], "tabular": [20]}[modality]
        if len(shape) != rank:
            expected = {"image": "[channels, height, width]", "tabular": "[features]"}[modality]
            raise OptionError("shape", f"expected {expected} for data.modality={modality}, got {shape}")
        scale = ((0.5,) * shape[0], (0.29,) * shape[0]) if modality == "image" else ((), ())
        spec = DataSpec(modality, tuple(shape), names, *scale)

    def load() -> Splits:
        generator = torch.Generator().manual_seed(0)
        carved = common.carve(_noise(spec, size, generator))
        return Splits(carved.train, carved.val, _noise(spec, max(size // 5, 1), generator))

    return Source(spec, load)


def _noise(spec: DataSpec, size: int, generator: torch.Generator) -> ArraySplit:
    # Labels go round, so that every class has its share however small the set.
    targets = (torch.arange(size) % spec.num_outputs)[torch.randperm(size, generator=generator)]
    if spec.modality == "text":
        tokens = torch.randint(2, spec.vocab_size, (size, *spec.shape), generator=generator, dtype=torch.int32)
        return TokenSplit(tokens, targets)
    if spec.modality == "tabular":
        return ArraySplit(torch.randn(size, *spec.shape, generator=generator), targets)
    channels, height, width = spec.shape
    pixels = torch.randint(0, 256, (size, height, width, channels), generator=generator, dtype=torch.uint8)
    return ArraySplit(pixels, targets)
