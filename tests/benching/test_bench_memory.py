"""What a model takes, against blocks of known size."""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor

from dlrun.benching.memory import peak

MEBIBYTE = 2**20


def measured() -> tuple[dict[str, int | None], dict[str, int | None]]:
    inputs = torch.ones(MEBIBYTE)

    def load() -> Callable[[Tensor], Tensor]:
        weights = torch.ones(64 * MEBIBYTE // 4)  # 64 MiB, for good

        def call(batch: Tensor) -> Tensor:
            return (weights.repeat(2) + 1).sum() + batch.sum()  # twice 128 MiB, in turn and together

        return call

    return peak(load, inputs), peak(lambda: lambda batch: batch, inputs)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")
def test_the_peak_counts_what_is_loaded_and_what_is_used_for_a_moment() -> None:
    """In a process that has done nothing else: this one has memory left of other tests."""
    with get_context("spawn").Pool(1) as pool:
        found, again = pool.apply(measured)
    assert found["cuda"] is None
    assert 310 * MEBIBYTE < found["resident"] < 345 * MEBIBYTE
    assert again["resident"] < 16 * MEBIBYTE, "an earlier peak is forgotten"
