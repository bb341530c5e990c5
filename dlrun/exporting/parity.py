"""Whether an exported file answers as the net does that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.spec import PAD, DataSpec

SIZES = (1, 2, 7, 64)  # of batches; what is traced with two samples must not have kept the two
MORE = 8  # batches of the largest size besides, if there is data for them

Measure = Literal["error", "disagreement"]
# In single precision another order of sums changes 1e-6 of the largest logit, and a wrong graph rarely less than 1e-2.
# A half has 11 bits (5e-4), and some twenty layers of that add up to a few thousandths. An int8 net has other logits:
# there it counts how often it chooses another class.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "int8": 0.05}


@dataclass(frozen=True)
class Parity:
    """How far a file is from its net: `max_error` is relative to the largest logit of the batches, `agreement` the
    share of samples that get the same class. `measure` is what `tolerance` is a bound of: the error, or 1 - agreement.
    """

    passed: bool
    tolerance: float
    measure: Measure
    max_error: float
    agreement: float
    samples: int
    batch_sizes: list[int]
    lengths: list[int]  # of texts
    inputs: str  # which split the batches are of, or "random"
    error: str | None = None  # what stopped the file

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def compare(
    net: Callable[[Tensor], Tensor],
    file: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    tolerance: float,
    measure: Measure,
    inputs: str,
) -> Parity:
    """Both on the same `batches`, each given as the net takes it and as the file does; lengths are those of texts."""
    worst = largest = 0.0
    same = samples = 0
    sizes, lengths, stopped = [], [], None
    for given, taken in batches:
        wanted = net(given).float()
        if not wanted.isfinite().all():  # with them no distance would be too large
            stopped = f"{len(given)} samples: the net's own logits aren't finite"
            break
        try:
            got = file(taken).float()
        except Exception as problem:  # of any of four runtimes: then it doesn't answer as the net does
            stopped = f"{len(given)} samples: {str(problem).partition(chr(10))[0]}"
            break
        if got.shape != wanted.shape or not got.isfinite().all():
            stopped = f"{len(given)} samples: expected {list(wanted.shape)} finite logits, got {list(got.shape)}"
            break
        worst = max(worst, (got - wanted).abs().max().item())
        largest = max(largest, wanted.abs().max().item())
        same += int((got.argmax(dim=1) == wanted.argmax(dim=1)).sum())
        samples += len(given)
        sizes.append(len(given))
        if given.ndim == 2 and given.dtype == torch.int64:
            lengths.append(given.shape[1])
    error = worst / max(largest, torch.finfo(torch.float32).tiny) if stopped is None else float("inf")
    agreement = same / max(samples, 1)
    found = error if measure == "error" else 1 - agreement
    return Parity(
        stopped is None and found <= tolerance,
        tolerance,
        measure,
        error,
        agreement,
        samples,
        sorted(set(sizes)),
        sorted(set(lengths)),
        inputs,
        stopped,
    )


def cut(samples: Tensor, text: bool) -> list[Tensor]:
    """Batches of several sizes, and of texts of several lengths too, out of a batch of samples (N, …), again and again
    if they are few.
    """
    sizes = [*SIZES, *[SIZES[-1]] * min(MORE, max(len(samples) - sum(SIZES), 0) // SIZES[-1])]
    batches, start = [], 0
    for number, size in enumerate(sizes):
        batch = samples[torch.arange(start, start + size) % len(samples)]
        if text:
            longest = int((batch != PAD).sum(dim=1).max().clamp_min(1))
            batch = batch[:, : _length(number, longest)]
        batches.append(batch)
        start += size
    return batches


def enough() -> int:
    """How many samples `cut` makes use of."""
    return sum(SIZES) + MORE * SIZES[-1]


def _length(number: int, longest: int) -> int:
    """All of a batch's words, one, or half of them."""
    lengths: Sequence[int] = (longest, 1, max(longest // 2, 1), longest)
    return lengths[number] if number < len(lengths) else longest


def random_samples(spec: DataSpec, count: int, seed: int = 0) -> Tensor:
    """Raw samples of the data's shape, where the data is gone."""
    random = torch.Generator().manual_seed(seed)
    if spec.modality == "text":
        tokens = torch.randint(PAD + 1, spec.vocab_size, (count, *spec.shape), generator=random)
        ends = torch.randint(1, spec.shape[0] + 1, (count, 1), generator=random)
        return tokens.masked_fill(torch.arange(spec.shape[0]) >= ends, PAD)
    if spec.modality == "image":
        channels, height, width = spec.shape
        return torch.randint(0, 256, (count, height, width, channels), generator=random, dtype=torch.uint8)
    return torch.randn(count, *spec.shape, generator=random)
