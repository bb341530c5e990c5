"""What a model takes, against blocks of known size."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from dlrun.benching.memory import peak

MEBIBYTE = 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")
def test_the_peak_counts_what_is_loaded_and_what_is_used_for_a_moment() -> None:
    inputs = torch.ones(MEBIBYTE)

    def load() -> object:
        weights = torch.ones(64 * MEBIBYTE // 4)  # 64 MiB, for good

        def call(batch: Tensor) -> Tensor:
            return (weights.repeat(2) + 1).sum() + batch.sum()  # twice 128 MiB, in turn and together

        return call

    found = peak(load, inputs)
    assert found["cuda"] is None
    assert 310 * MEBIBYTE < found["resident"] < 345 * MEBIBYTE
    again = peak(lambda: lambda batch: batch, inputs)
    assert again["resident"] < 16 * MEBIBYTE, "an earlier peak is forgotten"
