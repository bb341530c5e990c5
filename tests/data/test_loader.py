from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dlrun.data.augment import Augment
from dlrun.data.loader import Batches
from dlrun.data.prepare import Mix
from dlrun.data.source import ArraySplit, PixelSplit, TokenSplit, limited
from dlrun.data.workers import Workers

CPU = torch.device("cpu")
TRANSFORMS = [{"HorizontalFlip": {}}, {"Affine": {"rotate": [-30, 30], "p": 0.8}}, {"GaussNoise": {"p": 0.5}}]


def batches(size: int, batch_size: int, **options) -> Batches:
    """Samples that are their own number, and three times it as a target."""
    numbers = torch.arange(size)
    return Batches(ArraySplit(numbers, 3 * numbers), batch_size, lambda batch: batch, CPU, **options)


def numbers(epoch) -> list[list[int]]:
    drawn = list(epoch)
    assert all(torch.equal(targets, 3 * inputs) for inputs, targets in drawn)
    return [inputs.tolist() for inputs, _ in drawn]


def flat(lists: list[list[int]]) -> list[int]:
    return [number for part in lists for number in part]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_sample_once_per_epoch(seed):
    train = batches(23, 5, shuffle_seed=seed)
    epochs = [numbers(train.epoch(epoch)) for epoch in range(4)]
    assert len(train) == 5
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[5, 5, 5, 5, 3]] * 4
    assert [sorted(flat(epoch)) for epoch in epochs] == [list(range(23))] * 4
    assert len({tuple(flat(epoch)) for epoch in epochs}) == 4
    assert [numbers(train.epoch(epoch)) for epoch in range(4)] == epochs


def test_evaluation_keeps_the_order():
    assert numbers(batches(7, 3).epoch(0)) == numbers(batches(7, 3).epoch(5)) == [[0, 1, 2], [3, 4, 5], [6]]


def pictures(workers: int, seed: int = 0) -> Batches:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (22, 8, 8, 3), dtype=np.uint8))
    return Batches(
        PixelSplit(pixels, torch.arange(22) % 4),
        4,
        lambda batch: batch.float(),
        CPU,
        shuffle_seed=seed,
        augment=Augment(TRANSFORMS, seed),
        mix=Mix(0.5, 0.5, 4, seed),
        workers=Workers(workers),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_on_the_device_is_told_which_samples_and_where_they_stand(workers):
    told = []

    def device_augment(pixels, epoch, position, indices):
        told.append((epoch, position, indices.tolist()))
        return pixels + 1000

    made = batches(23, 5, shuffle_seed=0, limit=4, device_augment=device_augment, workers=Workers(workers))
    for start in (0, 2):
        told.clear()
        drawn = [(inputs - 1000).tolist() for inputs, _ in made.epoch(3, start)]
        assert told == [(3, 5 * number, drawn[number - start]) for number in range(start, 4)]


def test_number_of_workers_changes_nothing():
    alone, one_worker, two_workers = pictures(0), pictures(1), pictures(2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for epoch in (0, 1):
        expected = list(alone.epoch(epoch))
        assert len(expected) == 6
        for several in (one_worker.epoch(epoch), two_workers.epoch(epoch)):
            for one, other in zip(expected, several, strict=True):
                assert torch.equal(one[0], other[0])
                assert torch.equal(one[1], other[1])
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws the same, too


@pytest.mark.parametrize("workers", [0, 2])
def test_the_rest_of_an_epoch(workers):
    whole = list(pictures(0).epoch(3))
    for start in (0, 1, 4, 5, 6):
        rest = list(pictures(workers if start in (1, 6) else 0).epoch(3, start))
        assert len(rest) == 6 - start
        for (inputs, targets), expected in zip(rest, whole[start:], strict=True):
            assert torch.equal(inputs, expected[0])
            assert torch.equal(targets, expected[1])


def test_nothing_before_the_start_is_read():
    @dataclass
    class Recording(ArraySplit):
        read: list[int]

        def fetch(self, indices):
            self.read += indices.tolist()
            return super().fetch(indices)

    split = Recording(torch.arange(20), torch.arange(20), [])
    train = Batches(split, 4, lambda batch: batch, CPU, shuffle_seed=0)
    rest = flat([inputs.tolist() for inputs, _ in train.epoch(0, 3)])
    assert split.read == rest
    assert len(rest) == 8


@pytest.mark.parametrize(
    ("size", "batch_size", "training", "expected"),
    [
        (21, 5, True, [5, 5, 5, 5]),  # batch norm can't train on one sample
        (21, 5, False, [5, 5, 5, 5, 1]),
        (22, 5, True, [5, 5, 5, 5, 2]),
        (20, 5, True, [5, 5, 5, 5]),
        (1, 5, True, [1]),
        (3, 5, True, [3]),
        (4, 1, True, [1, 1, 1, 1]),
    ],
)
def test_sizes_and_samples(size, batch_size, training, expected):
    made = batches(size, batch_size, shuffle_seed=0 if training else None)
    assert [len(batch) for batch in numbers(made.epoch(0))] == expected
    assert len(made) == len(expected)
    assert made.samples(0, 0) == 0
    for start in range(len(expected)):
        for stop in range(start + 1, len(expected) + 1):
            assert made.samples(start, stop) == sum(expected[start:stop]), (start, stop)


def test_the_sample_left_out_changes():
    train = batches(21, 5, shuffle_seed=0)
    left_out = [set(range(21)) - set(flat(numbers(train.epoch(epoch)))) for epoch in range(20)]
    assert all(len(out) == 1 for out in left_out)
    assert len(set.union(*left_out)) > 8


@pytest.mark.parametrize("limit", [1, 3, 5, 99])
def test_limit_is_the_beginning_of_the_epoch(limit):
    whole = numbers(batches(23, 5, shuffle_seed=0).epoch(1))
    limited = batches(23, 5, shuffle_seed=0, limit=limit)
    assert numbers(limited.epoch(1)) == whole[:limit]
    assert len(limited) == min(limit, 5)
    assert limited.samples(0, len(limited)) == sum(map(len, whole[:limit]))


def test_the_indices_of_a_batch_are_what_is_read():
    for size, batch_size, seed, limit in ((23, 5, 0, None), (21, 5, 3, None), (23, 5, None, None), (23, 5, 0, 2)):
        made = batches(size, batch_size, shuffle_seed=seed, limit=limit)
        for epoch in (0, 4):
            told = [made.indices(epoch, batch) for batch in range(len(made))]
            assert [indices.tolist() for indices in told] == numbers(made.epoch(epoch))
            assert {indices.dtype for indices in told} == {torch.int64}
        for outside in (-1, len(made)):
            with pytest.raises(IndexError, match=f"batch {outside} of {len(made)}"):
                made.indices(0, outside)


def test_the_indices_of_a_batch_are_known_without_reading():
    class Unreadable(ArraySplit):
        def fetch(self, indices):
            raise AssertionError("nobody asked for data")

    train = Batches(Unreadable(torch.arange(10), torch.arange(10)), 4, lambda batch: batch, CPU, shuffle_seed=0)
    assert sorted(flat([train.indices(0, batch).tolist() for batch in range(3)])) == list(range(10))


def texts(size: int, batch_size: int, bucketing: bool = True, **options) -> Batches:
    """Texts whose first word is their number + 1, and their target three times it; of 1 to 40 words."""
    lengths = np.random.default_rng(1).geometric(0.1, size).clip(1, 40)
    tokens = torch.zeros(size, 40, dtype=torch.int32)
    for number, length in enumerate(lengths):
        tokens[number, :length] = number + 1
    split = TokenSplit(tokens, 3 * torch.arange(size), bucketing=bucketing)
    return Batches(split, batch_size, lambda batch: batch.long(), CPU, **options)


def read(epoch) -> list[list[int]]:
    """The numbers of the texts in each batch, none of which is longer than its longest text."""
    drawn = list(epoch)
    for inputs, targets in drawn:
        assert torch.equal(targets, 3 * (inputs[:, 0] - 1))
        assert (inputs[:, -1] != 0).any()
    return [(inputs[:, 0] - 1).tolist() for inputs, _ in drawn]


@pytest.mark.parametrize("workers", [0, 2])
def test_texts_of_similar_length_go_together(workers):
    train = texts(203, 5, shuffle_seed=0, workers=Workers(workers))
    epochs = [read(train.epoch(epoch)) for epoch in (0, 1)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [5] * 40 + [3]
        assert sorted(flat(epoch)) == list(range(203))
    assert epochs[0] != epochs[1]
    at_random = texts(203, 5, bucketing=False, shuffle_seed=0)
    assert read(at_random.epoch(0)) == numbers(batches(203, 5, shuffle_seed=0).epoch(0))
    steps, steps_at_random = (sum(inputs.shape[1] for inputs, _ in made.epoch(0)) for made in (train, at_random))
    assert steps < 0.6 * steps_at_random
    assert read(train.epoch(1, start=17)) == epochs[1][17:]  # a resume in the middle of an epoch
    assert [train.indices(1, batch).tolist() for batch in range(41)] == epochs[1]
    assert train.order(1).tolist() == flat(epochs[1])


@pytest.mark.parametrize(("size", "expected"), [(21, [5] * 4), (22, [5] * 4 + [2]), (3, [3]), (1, [1])])
def test_sizes_of_batches_of_texts(size, expected):
    train = texts(size, 5, shuffle_seed=0)
    for epoch in range(5):
        assert [len(batch) for batch in read(train.epoch(epoch))] == expected
    assert train.samples(0, len(train)) == sum(expected)
    train.limit = 2
    assert read(train.epoch(1)) == read(texts(size, 5, shuffle_seed=0).epoch(1))[:2]


@pytest.mark.parametrize("limit", [None, 1, 3, 99])
def test_texts_are_evaluated_longest_first_and_a_limit_keeps_which(limit):
    made = texts(23, 5, limit=limit)
    epoch = flat(read(made.epoch(0)))
    assert sorted(epoch) == list(range(min(23, 5 * (limit or 99)))) == sorted(made.order(0).tolist())
    lengths = made.split.lengths[epoch]
    assert torch.equal(lengths, lengths.sort(descending=True).values)
    assert flat(read(made.epoch(7))) == epoch
    few = Batches(limited(made.split, 9, 0), 4, made.prepare, CPU)
    assert len(flat(read(few.epoch(0)))) == 9
