"""Batches to time with: real ones, or random ones of their shape where the data is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dlrun.comparison.subjects import Opened
from dlrun.data.loader import Batches
from dlrun.data.source import rows
from dlrun.exporting.parity import random_samples
from dlrun.spec import DataSpec

NUMBER = 8  # batches of each size, used in turn


def raw_batches(spec: DataSpec, test: Batches | None, batch_size: int) -> list[Tensor]:
    """Inputs to time with: real ones, drawn from the test split, or where that is gone random ones of its shape."""
    if test is None:
        return list(random_samples(spec, NUMBER * batch_size, batch_size).split(batch_size))
    random, batches = torch.Generator().manual_seed(batch_size), []
    for _ in range(NUMBER):
        order = torch.randperm(len(test.split), generator=random)
        batches.append(test.split.fetch(rows(order, torch.arange(batch_size) % len(order))))
    return batches


def prepared(opened: Mapping[str, Opened], raw: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Each subject's own batches, by its name; those that are the same to the byte are kept once."""
    kinds: list[list[Tensor]] = []
    found = {}
    for name, subject in opened.items():
        mine = [subject.prepare(batch.clone()) for batch in raw]
        same = next((kind for kind in kinds if _same(kind, mine)), None)
        if same is None:
            kinds.append(mine)
        found[name] = mine if same is None else same
    return found


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(
        a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b) for a, b in zip(some, others, strict=True)
    )
