from __future__ import annotations

import by_hand
import numpy as np
import pytest
import torch
from scipy import stats

from dlrun.data.prepare import Mix, preparation
from dlrun.spec import DataSpec

CPU = torch.device("cpu")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CLASSES = tuple("abcdefgh")


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_are_normalised(channels_last):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    prepare = preparation(DataSpec("image", (3, 5, 7), CLASSES, MEAN, STD), CPU, channels_last)
    expected = ((pixels.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    images = prepare(torch.from_numpy(pixels))
    assert images.dtype == torch.float32
    assert images.shape == (4, 3, 5, 7)
    np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_slab_is_what_albumentations_makes_of_each_picture(channels, channels_last):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 20, channels), dtype=np.uint8)
    mean, std = MEAN[:channels], STD[:channels]
    compose = by_hand.A.Compose([by_hand.A.Normalize(mean, std), by_hand.A.ToTensorV2()])
    expected = torch.stack([compose(image=image)["image"] for image in pixels])
    prepare = preparation(DataSpec("image", (channels, 32, 20), CLASSES, mean, std), CPU, channels_last)
    batch = torch.from_numpy(pixels.copy())
    torch.testing.assert_close(prepare(batch), expected, rtol=0, atol=2e-6)
    assert torch.equal(batch, torch.from_numpy(pixels))


def test_token_ids_and_features_stay():
    tokens = torch.tensor([[5, 0], [7, 9]], dtype=torch.int32)
    ids = preparation(DataSpec("text", (8,), CLASSES, vocab_size=10), CPU)(tokens)
    assert ids.dtype == torch.int64
    assert ids.tolist() == tokens.tolist()
    features = torch.tensor([[0.5, -1e6], [3.0, 0.0]])
    spec = DataSpec("tabular", (2,), CLASSES, (5.0, 5.0), (2.0, 2.0))  # standardised already, by the dataset
    assert torch.equal(preparation(spec, CPU)(features), features)


def blended(targets, shares):
    """From mixed targets of eight samples of eight classes: the common share, and each one's partner."""
    assert shares.shape == (8, 8)
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    others = torch.empty(8, dtype=torch.int64)
    share = None
    for row, (label, mixed) in enumerate(zip(targets.tolist(), shares, strict=True)):
        rest = mixed.clone()
        rest[label] = 0
        if rest.any():
            others[row] = (targets == rest.argmax()).nonzero().item()
            assert rest.count_nonzero() == 1
            assert share in (None, mixed[label].item())
            share = mixed[label].item()
        else:
            others[row] = row
    assert others.sort().values.tolist() == list(range(8))
    return share, others


TARGETS = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])


@pytest.mark.parametrize("shape", [(3, 6, 5), (20,)])
def test_mixup_is_the_convex_combination(shape):
    inputs = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    before = inputs.clone()
    mix = Mix(mixup=1.0, cutmix=0.0, num_classes=8, seed=0)
    for position in range(0, 80, 8):
        mixed, shares = mix(inputs, TARGETS, 0, position)
        share, others = blended(TARGETS, shares)
        expected = share * inputs.double() + (1 - share) * inputs.double()[others]
        torch.testing.assert_close(mixed.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_come_from_a_beta_distribution(alpha):
    mix = Mix(mixup=alpha, cutmix=0.0, num_classes=8, seed=0)
    inputs = torch.zeros(8, 1)
    drawn = [blended(TARGETS, mix(inputs, TARGETS, epoch, 0)[1])[0] for epoch in range(300)]
    assert stats.kstest([d for d in drawn if d is not None], stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmix_pastes_one_box_and_counts_it_exactly():
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 2, 9, 7).contiguous()  # each says whose it is
    mix = Mix(mixup=0.0, cutmix=1.0, num_classes=8, seed=0)
    boxes = set()
    for epoch in range(40):
        mixed, shares = mix(images, TARGETS, epoch, 0)
        share, others = blended(TARGETS, shares)
        pasted = mixed != images  # (8, 2, 9, 7)
        assert torch.equal(mixed, torch.where(pasted, images[others], images))
        if share is None or not pasted.any():
            continue
        moved = others != torch.arange(8)
        box = pasted[moved][0, 0]
        assert (pasted[moved] == box).all()
        assert not pasted[~moved].any()
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns[None, :])
        assert (rows.int().diff() != 0).sum() <= 2  # without a gap
        assert (columns.int().diff() != 0).sum() <= 2
        assert share == pytest.approx(1 - box.sum().item() / 63, abs=1e-7)
        boxes.add(tuple(map(tuple, box.nonzero().tolist())))
    assert len(boxes) > 25
    assert (images == torch.arange(8.0).view(8, 1, 1, 1)).all()


def test_cutmix_boxes_cover_what_was_drawn_where_they_are_not_cut_off():
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 64, 64).contiguous()
    mix = Mix(mixup=0.0, cutmix=1.0, num_classes=8, seed=0)
    areas, full = [], 0
    for epoch in range(300):
        pasted = (mix(images, TARGETS, epoch, 0)[0] != images).any(0)[0]
        areas.append(pasted.double().mean().item())
        inside = not (pasted[0].any() or pasted[-1].any() or pasted[:, 0].any() or pasted[:, -1].any())
        full += inside and pasted.any()
        if inside and pasted.any():
            assert pasted.any(0).sum() == pasted.any(1).sum()  # square where the picture is
    assert full > 50
    # A square of side s around a uniform centre covers s - s²/4 of each axis on average (s ≤ 1); with the area s²
    # uniform on [0, 1] the mean cover is ∫ (s - s²/4)² 2s ds = 1/2 - 1/5 + 1/48.
    assert np.mean(areas) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.04)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixing_depends_on_seed_epoch_and_position_alone(mixup, cutmix):
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def mixed(seed, epoch, position):
        return Mix(mixup, cutmix, 8, seed)(images, TARGETS, epoch, position)

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 8), (0, 0, 16)]
    first = [mixed(*place) for place in places]
    torch.manual_seed(5), np.random.seed(5)
    for place, (inputs, shares) in zip(places, first, strict=True):
        again = mixed(*place)
        assert torch.equal(again[0], inputs)
        assert torch.equal(again[1], shares)
    assert len({inputs.numpy().tobytes() for inputs, _ in first}) == len(places)


def test_with_both_on_a_coin_is_tossed():
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 8, 8).contiguous()
    mix = Mix(mixup=1.0, cutmix=1.0, num_classes=8, seed=0)
    whole = [mix(images, TARGETS, epoch, 0)[0] for epoch in range(200)]
    cut = sum(bool((mixed == mixed.round()).all()) for mixed in whole)  # pasted, not blended
    assert abs(cut - 100) < 5 * 50**0.5
