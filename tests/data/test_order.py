from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from dlrun.data.order import AUGMENT, MIX, SHUFFLE, Jumper, generator_at, philox, shuffled

STREAMS = (SHUFFLE, AUGMENT, MIX)


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
    assert len(set(drawn)) == len(drawn) == len(seeds) * 36 * 64
