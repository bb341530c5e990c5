"""A file that answers otherwise is found out."""

from __future__ import annotations

import pytest
import torch
from nets import SPECS
from torch import Tensor

from dlrun.exporting.parity import SIZES, Measure, Parity, compare, cut, enough, random_samples
from dlrun.spec import PAD


def net(x: Tensor) -> Tensor:
    return torch.stack([x.sum(1), -x.sum(1)], dim=1)


def checked(file: object, tolerance: float = 1e-4, measure: Measure = "error") -> Parity:
    samples = torch.linspace(-1, 1, 400).view(200, 2)
    return compare(net, file, ((part, part) for part in cut(samples, False)), tolerance, measure, "test")  # type: ignore[arg-type]


def test_the_error_is_a_share_of_the_largest_logit() -> None:
    found = checked(lambda x: net(x) + 0.02, tolerance=0.011)
    assert found.max_error == pytest.approx(0.02 / 2, rel=0.02)  # the largest logit is all but 2
    assert found.passed
    assert not checked(lambda x: net(x) + 0.02, tolerance=0.009).passed
    assert (found.batch_sizes, found.samples) == ([1, 2, 7, 64], 1 + 2 + 7 + 64 + 64)


def test_agreement_is_a_share_of_the_samples() -> None:
    samples = torch.arange(1.0, 101).unsqueeze(1)
    flips = lambda x: torch.where(x <= 10, -net(x), net(x))  # noqa: E731
    found = compare(net, flips, [(samples, samples)], 0.1, "disagreement", "test")
    assert found.agreement == pytest.approx(0.9)
    assert found.passed
    assert not compare(net, flips, [(samples, samples)], 0.09, "disagreement", "test").passed


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (lambda x: net(x) * float("nan"), "1 samples: expected [1, 2] finite logits, got [1, 2]"),
        (lambda x: net(x)[:1], "2 samples: expected [2, 2] finite logits, got [1, 2]"),  # kept the batch of a trace
        (lambda x: net(x.view(7, 2)), "1 samples: shape '[7, 2]' is invalid for input of size 2"),
    ],
)
def test_what_stops_the_file_is_told(file: object, why: str) -> None:
    for measure in ("error", "disagreement"):
        found = checked(file, 0.5, measure)  # type: ignore[arg-type]
        assert (found.passed, found.error) == (False, why)


def test_a_net_without_numbers_is_equal_to_nothing() -> None:
    """A training that diverged: every comparison with NaN is false, and so would be "is too far away"."""
    lost = lambda x: net(x) * float("nan")  # noqa: E731
    for measure in ("error", "disagreement"):
        found = compare(lost, net, [(torch.ones(3, 2),) * 2], 0.5, measure, "test")
        assert (found.passed, found.error) == (False, "3 samples: the net's own logits aren't finite")


def test_batches_of_several_sizes_and_lengths() -> None:
    text = random_samples(SPECS["text"], 100)
    parts = cut(text, True)
    assert [len(part) for part in parts] == list(SIZES)
    assert len({part.shape[1] for part in parts}) >= 3
    assert parts[1].shape[1] == 1
    assert all((part[:, 0] != PAD).all() for part in parts)
    assert len(cut(torch.zeros(3, 5), False)[-1]) == 64  # three samples, again and again
    assert sum(map(len, cut(torch.zeros(enough(), 5), False))) == enough()


def test_random_samples_look_like_the_data() -> None:
    assert random_samples(SPECS["image"], 4).shape == (4, 32, 32, 3)
    assert random_samples(SPECS["image"], 4).dtype == torch.uint8
    assert random_samples(SPECS["tabular"], 4).shape == (4, 5)
    text = random_samples(SPECS["text"], 50)
    assert text.max() < SPECS["text"].vocab_size
    words = text != PAD
    assert (words[:, :-1] >= words[:, 1:]).all()  # padding is at the end
