from __future__ import annotations

import pytest
import torch

from dlrun.data.loader import Batches
from dlrun.data.placement import arriving, placed
from dlrun.data.source import ArraySplit, PixelSplit, TokenSplit, rows

CPU, META = torch.device("cpu"), torch.device("meta")  # which computes nothing, but is another device


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float32])
def test_rows_are_what_indexing_gives(dtype):
    tensor = torch.randint(0, 200, (50, 3, 2), dtype=dtype)
    for indices in (torch.tensor([4, 0, 49, 4]), torch.arange(50), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(rows(tensor, indices), tensor[indices])
    assert rows(tensor.to(META), torch.tensor([1, 2])).shape == (2, 3, 2)


def test_a_split_moves_with_its_size_and_its_options():
    split = PixelSplit(torch.randint(0, 256, (2000, 8, 8, 3), dtype=torch.uint8), torch.arange(2000), size=[12, 10])
    moved = split.to(CPU)
    assert moved.size is None
    assert torch.equal(moved.inputs, split.fetch(torch.arange(2000)))
    assert split.nbytes == 2000 * 12 * 10 * 3 + 2000 * 8 == moved.nbytes
    texts = TokenSplit(torch.ones(3, 4, dtype=torch.int32), torch.arange(3), decode=lambda ids: f"{len(ids)} words")
    assert texts.to(CPU).show(0) == "4 words"
    there = ArraySplit(torch.ones(6, 2), torch.arange(6)).to(META)
    assert (there.inputs.device, there.targets.device) == (META, META)
    assert there.fetch(torch.tensor([1, 5])).shape == (2, 2)


def test_the_cpu_needs_no_moving_and_others_keep_what_they_have():
    split = ArraySplit(torch.ones(6, 2), torch.arange(6))
    assert placed(split, CPU) is split
    files = object()  # any split that isn't in memory
    assert placed(files, torch.device("cuda")) is files  # type: ignore[arg-type]


def test_too_large_stays_where_it_is(monkeypatch):
    split = ArraySplit(torch.ones(100, 2), torch.arange(100))
    assert split.nbytes == 1600
    for free, stays in ((6400, False), (6396, True)):
        monkeypatch.setattr("dlrun.data.placement._free_memory", lambda device, free=free: free)
        assert (placed(split, META) is split) == stays


def test_every_batch_arrives():
    batches = [(torch.ones(3) * i, torch.arange(3)) for i in range(4)]
    assert [inputs[0].item() for inputs, _ in arriving(iter(batches), CPU)] == [0, 1, 2, 3]
    assert [inputs.device for inputs, _ in arriving(iter(batches), META)] == [META] * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resident", [True, False])
def test_on_a_gpu_the_batches_are_the_same(resident):
    gpu = torch.device("cuda")
    split = PixelSplit(torch.randint(0, 256, (100, 8, 8, 3), dtype=torch.uint8), torch.arange(100))
    there = placed(split, gpu)
    assert there.inputs.is_cuda  # type: ignore[attr-defined]
    made = [
        Batches(s, 16, lambda batch: batch.float(), device, shuffle_seed=0)
        for s, device in ((split, CPU), (there if resident else split, gpu))
    ]
    for epoch in range(2):
        for (x, y), (gx, gy) in zip(made[0].epoch(epoch), made[1].epoch(epoch), strict=True):
            assert gx.is_cuda
            assert gy.is_cuda
            assert torch.equal(x, gx.cpu())
            assert torch.equal(y, gy.cpu())
