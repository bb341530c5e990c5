"""Views of a picture against the record's own weights of them, and a run that uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from command_line import CommandLine
from torch import Tensor, nn

from dlrun.build import build
from dlrun.config import parse
from dlrun.errors import UserError
from dlrun.tta import TTA, VIEWS, averaged

WORDS = ["model=cnn", "model.channels=[4]", "model.hidden_size=8", "trainer.max_steps=2", "augment=none"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(6 * 3 * 4, 5))


def shifted(images: Tensor, by: int) -> Tensor:
    """Pixel (y, x) comes from (y + by, x + by), reflected at the borders: written with indices."""
    rows, columns = (_reflected(torch.arange(length) + by, length) for length in images.shape[2:])
    return images[:, :, rows][:, :, :, columns]


def _reflected(places: Tensor, length: int) -> Tensor:
    return (length - 1) - (places.abs() - (length - 1)).abs()


@pytest.mark.parametrize(
    ("tta", "views"),
    [
        ("none", [(1.0, 0, False)]),
        ("flip", [(1 / 2, 0, False), (1 / 2, 0, True)]),
        ("flip_shift", [(w, by, mirrored) for w, by in ((1 / 4, 0), (1 / 8, 1), (1 / 8, -1)) for mirrored in (0, 1)]),
    ],
)
def test_logits_are_the_weighted_mean_over_the_views(tta: TTA, views: list[tuple[float, int, bool]]) -> None:
    model, images = network(), torch.randn(3, 2, 5, 6)
    moved = [(weight, shifted(images, by), mirrored) for weight, by, mirrored in views]
    expected = sum(weight * model(view.flip(-1) if mirrored else view) for weight, view, mirrored in moved)
    assert len(views) == VIEWS[tta]
    torch.testing.assert_close(averaged(model, images, tta), expected, rtol=1e-5, atol=1e-6)


def test_a_run_says_how_it_is_evaluated(dlrun: CommandLine) -> None:
    words = [*WORDS, "data=digits", "tracking=none", "trainer.max_steps=30"]
    found = {}
    for tta in VIEWS:
        result = dlrun(*words, f"trainer.tta={tta}")
        assert result.code == 0, result.err
        said = f"the mean of {VIEWS[tta]} views of each picture (trainer.tta={tta})"
        assert (said in result.out) == (tta != "none")
        found[tta] = dlrun.summary()["test"]["test/loss"]
    assert len(set(found.values())) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=pydocs", "model=mlp", "trainer.tta=flip"], r"trainer\.tta: is for images, and the data is text"),
        (
            ["data=fake", "data.shape=[1,1,9]", "trainer.tta=flip_shift"],
            r"trainer\.tta: flip_shift needs pictures of two",
        ),
        (["data=fake", "trainer.tta=flap"], r"trainer\.tta: expected one of 'none', 'flip', 'flip_shift', got 'flap'"),
    ],
)
def test_mistakes_are_named(compose_config: Callable[..., dict[str, Any]], words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(parse(compose_config(*words)))
