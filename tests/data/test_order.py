from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from dlrun.data.order import (
    AUGMENT,
    BUCKET,
    MIX,
    OWN,
    SHUFFLE,
    TENSOR,
    Jumper,
    bucketed,
    generator_at,
    longest_first,
    philox,
    shuffled,
    uniform_rows,
)

STREAMS = (SHUFFLE, AUGMENT, MIX, BUCKET, TENSOR, OWN)


def by_hand(seed, epoch, stream, position):
    """numpy's own Philox, made new with the counter and the key of that place."""
    key = np.random.SeedSequence([seed, epoch, stream]).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(counter=[0, position, 0, 0], key=key))


def test_shuffled_is_a_permutation_of_its_own_for_each_seed_and_epoch():
    orders = {(seed, epoch): shuffled(100, seed, epoch) for seed in range(5) for epoch in range(5)}
    for order in orders.values():
        assert order.dtype == torch.int64
        assert order.sort().values.tolist() == list(range(100))
    assert len({tuple(order.tolist()) for order in orders.values()}) == 25


def test_shuffled_puts_every_sample_everywhere():
    places = torch.stack([shuffled(10, 0, epoch) for epoch in range(2000)])  # 200 times each sample in each place
    counts = torch.stack([torch.bincount(places[:, place], minlength=10) for place in range(10)])
    assert ((counts - 200).abs() < 5 * 200**0.5).all()


def test_shuffled_depends_on_nothing_else():
    expected = by_hand(3, 7, SHUFFLE, 0).permutation(50).tolist()
    for global_seed in (1, 2):
        random.seed(global_seed), np.random.seed(global_seed), torch.manual_seed(global_seed)
        assert shuffled(50, 3, 7).tolist() == expected


@pytest.mark.parametrize("position", [0, 1, 63, 10**6, 2**63])
@pytest.mark.parametrize("stream", STREAMS)
def test_jumper_is_a_new_generator_at_that_place(position, stream):
    used = philox(5, 2, stream)
    used.random(3)
    jumper = Jumper(used)
    jumper.to(17)
    used.integers(0, 10, dtype=np.uint32), used.random(dtype=np.float32)  # leaves half a word and three whole ones over
    jumper.to(position)
    there, new = generator_at(5, 2, position, stream), by_hand(5, 2, stream, position)
    for draw in ("random", "standard_normal", "random"):
        expected = getattr(new, draw)(50).tolist()
        assert getattr(used, draw)(50).tolist() == expected
        assert getattr(there, draw)(50).tolist() == expected
    assert used.integers(0, 10, 5, dtype=np.uint32).tolist() == new.integers(0, 10, 5, dtype=np.uint32).tolist()


def test_companion_is_seeded_by_the_place():
    generator, companion = philox(5, 2, AUGMENT), random.Random(0)
    jumper = Jumper(generator)
    seen = []
    for position in (4, 9, 4):
        companion.gauss(0, 1)  # would leave a second normal over
        jumper.to(position, companion)
        new = by_hand(5, 2, AUGMENT, position)
        expected = random.Random(int(new.bit_generator.random_raw()))
        assert [companion.gauss(0, 1), companion.random()] == [expected.gauss(0, 1), expected.random()]
        assert generator.random() == new.random()
        seen.append(companion.random())
    assert seen[0] == seen[2] != seen[1]


@pytest.mark.parametrize("seeds", [(0, 1, 2), (2**32,), (2**63,)])
def test_no_two_places_share_a_number(seeds):
    places = list(itertools.product(seeds, (0, 1, 2), (0, 1, 2, 1000), STREAMS))
    drawn = [number for place in places for number in generator_at(*place).bit_generator.random_raw(64).tolist()]
    assert len(set(drawn)) == len(drawn) == len(seeds) * 12 * len(STREAMS) * 64


def lengths_like_texts(n: int) -> torch.Tensor:
    """Many short ones and a long tail, cut at 64."""
    return torch.from_numpy(np.random.default_rng(0).lognormal(2.8, 0.7, n).clip(1, 64).astype(np.int32))


def padding(lengths: torch.Tensor, order: torch.Tensor, batch_size: int) -> float:
    """The share of padding if each batch is as long as its longest."""
    batches = lengths[order].split(batch_size)
    return 1 - lengths[order].sum().item() / sum(len(batch) * batch.max().item() for batch in batches)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 63, 64, 65, 500, 1729])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_bucketed_is_a_permutation_of_its_own_for_each_seed_and_epoch(n, batch_size):
    lengths = lengths_like_texts(n)
    orders = {(s, e): bucketed(lengths, batch_size, s, e) for s in range(2) for e in range(3)}
    for place, order in orders.items():
        assert order.dtype == torch.int64
        assert order.sort().values.tolist() == list(range(n))
        np.random.seed(place[1]), torch.manual_seed(place[1])
        assert torch.equal(bucketed(lengths, batch_size, *place), order)
    if n > max(batch_size, 9):  # one batch has one order
        assert len({tuple(order.tolist()) for order in orders.values()}) == 6


@pytest.mark.parametrize(("n", "batch_size"), [(1729, 64), (10_000, 32), (3000, 16)])
def test_bucketed_leaves_little_padding(n, batch_size):
    lengths = lengths_like_texts(n)
    for epoch in range(5):
        at_random = padding(lengths, shuffled(n, 0, epoch), batch_size)
        sorted_all = padding(lengths, lengths.argsort(), batch_size)
        share = padding(lengths, bucketed(lengths, batch_size, 0, epoch), batch_size)
        assert at_random > 0.5
        assert share < at_random / 2.5
        assert share < sorted_all + 0.2


def test_bucketed_is_cut_from_sorted_chunks():
    """Every batch but the few at a border is a run of a chunk that was drawn at random and sorted."""
    lengths, batch_size = lengths_like_texts(3200), 16
    chunks = shuffled(3200, 5, 2).split(50 * batch_size)
    batches = bucketed(lengths, batch_size, 5, 2).split(batch_size)
    inside = 0
    for batch in batches:
        home = [set(batch.tolist()) <= set(chunk.tolist()) for chunk in chunks]
        inside += any(home)
        if any(home):
            rest = set(chunks[home.index(True)].tolist()) - set(batch.tolist())
            low, high = lengths[batch].min(), lengths[batch].max()
            assert not any(low < lengths[i] < high for i in rest), "a text between them went elsewhere"
    assert inside >= len(batches) - 4


def test_batches_of_one_epoch_are_in_no_order():
    lengths = lengths_like_texts(6400)
    longest = [torch.stack([b.max() for b in bucketed(lengths, 16, 0, e).split(16)]).double() for e in range(20)]
    place = torch.arange(400).double()
    correlations = [torch.corrcoef(torch.stack([place, batch]))[0, 1] for batch in longest]
    assert abs(torch.stack(correlations).mean()) < 3 / (400 * 20) ** 0.5


def test_a_sample_left_over_may_be_any():
    """The last of 65: a batch of one is dropped in training, and must not always be the longest text."""
    lengths = torch.arange(1, 66)
    last = torch.stack([bucketed(lengths, 64, 0, epoch)[-1] for epoch in range(3000)])
    counts = torch.bincount(last, minlength=65)
    assert ((counts - 3000 / 65).abs() < 5 * (3000 / 65) ** 0.5).all()


def test_longest_first():
    lengths = torch.tensor([3, 9, 3, 1, 9], dtype=torch.int32)
    assert longest_first(lengths).tolist() == [1, 4, 0, 2, 3]


@pytest.mark.parametrize("columns", [1, 4, 7, 32])
def test_a_row_of_uniforms_is_the_same_whichever_are_drawn_with_it(columns):
    whole = uniform_rows(5, 2, TENSOR, 0, (300, columns))
    assert whole.shape == (300, columns)
    assert len(np.unique(whole)) == whole.size
    assert 0 <= whole.min() < 0.02 < 0.98 < whole.max() < 1
    for position, rows in ((0, 1), (17, 64), (299, 1)):
        assert np.array_equal(uniform_rows(5, 2, TENSOR, position, (rows, columns)), whole[position : position + rows])
    key = np.random.SeedSequence([5, 2, TENSOR]).generate_state(2, np.uint64)
    new = np.random.Generator(np.random.Philox(counter=17 * -(-columns // 4), key=key))
    assert np.array_equal(new.random(columns), whole[17])
    for other in (uniform_rows(6, 2, TENSOR, 0, (300, columns)), uniform_rows(5, 3, TENSOR, 0, (300, columns))):
        assert not np.isin(other, whole).any()
