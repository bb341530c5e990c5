"""The way to the device: what fits lives there; of anything else a batch travels while the one before is worked on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dlrun.data.source import ArraySplit, Split

SHARE = 0.25  # of the device's free memory that one split may take: the training needs the rest

Batch = tuple[Tensor, Tensor]  # inputs, targets


def placed(split: Split, device: torch.device) -> Split:
    """The split with its tensors on `device`, so that no batch crosses the bus; as it is, if it isn't all in memory or
    doesn't fit.
    """
    if device.type == "cpu" or not isinstance(split, ArraySplit):
        return split
    return split.to(device) if split.nbytes <= SHARE * _free_memory(device) else split


def _free_memory(device: torch.device) -> int:
    """Bytes that can still be had."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()


def arriving(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`. On CUDA each is copied on a stream of its own, while the one before it is worked on."""
    if device.type != "cuda":
        for inputs, targets in batches:
            yield inputs.to(device), targets.to(device)
        return
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            # From pageable memory the copy would wait for the device, and the training with it.
            copied = tuple(t if t.is_cuda else _pinned(t).to(device, non_blocking=True) for t in batch)
        there = stream.record_event()
        if ahead is not None:
            yield _received(*ahead, current)
        ahead = copied, there  # type: ignore[assignment]
    if ahead is not None:
        yield _received(*ahead, current)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_pinned() else tensor.pin_memory()


def _received(batch: Batch, there: torch.cuda.Event, current: torch.cuda.Stream) -> Batch:
    """The work to come waits for this copy, not for the next; its memory isn't given away before that work is done."""
    current.wait_event(there)
    for tensor in batch:
        tensor.record_stream(current)
    return batch
