"""Scores against scikit-learn's, and the calibration error against two other computations of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from dlrun.scoring import (
    Calibration,
    ClassScores,
    OperatingPoints,
    brier,
    confused,
    confusion_matrix,
    ranks,
    top_k_accuracy,
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Truths, guesses and the number of classes, of which some may not occur."""
    classes = draw(st.integers(2, 7))
    one = st.integers(0, classes - 1)
    pairs = draw(st.lists(st.tuples(one, one), min_size=1, max_size=60))
    truths, guesses = torch.tensor(pairs).unbind(1)
    return truths, guesses, classes


def logits(samples: int, classes: int, seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        scale * torch.randn(samples, classes, generator=generator),
        torch.randint(classes, (samples,), generator=generator),
    )


@settings(deadline=None, max_examples=150)
@given(answers())
def test_class_scores_are_scikit_learns(given: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    truths, guesses, classes = given
    confusion = confusion_matrix(truths, guesses, classes)
    assert confusion.tolist() == sk.confusion_matrix(truths, guesses, labels=range(classes)).tolist()
    scores = ClassScores.of(confusion)
    expected = sk.precision_recall_fscore_support(truths, guesses, labels=range(classes), zero_division=0)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)
    for average, ours in (("macro", scores.macro()), ("weighted", scores.weighted())):
        theirs = sk.precision_recall_fscore_support(truths, guesses, average=average, zero_division=0)[:3]
        np.testing.assert_allclose([ours["precision"], ours["recall"], ours["f1"]], theirs, rtol=1e-12)
    there = sorted(set(truths.tolist()))  # scikit-learn's balanced accuracy, without its warning
    recalls = sk.recall_score(truths, guesses, labels=there, average=None, zero_division=0)
    assert scores.balanced_accuracy() == pytest.approx(recalls.mean(), rel=1e-12)
    assert torch.equal(scores.predicted, torch.bincount(guesses, minlength=classes))


def test_balanced_accuracy_is_scikit_learns() -> None:
    scores, targets = logits(500, 4)
    guesses = scores.argmax(1)
    ours = ClassScores.of(confusion_matrix(targets, guesses, 4)).balanced_accuracy()
    assert ours == pytest.approx(sk.balanced_accuracy_score(targets, guesses), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_is_scikit_learns(k: int) -> None:
    scores, targets = logits(400, 12)
    ours = top_k_accuracy(ranks(scores, targets), k)
    assert ours == pytest.approx(sk.top_k_accuracy_score(targets, scores, k=k, labels=range(12)), rel=1e-12)


def test_of_equal_scores_the_first_class_comes_first_as_in_argmax() -> None:
    scores = torch.tensor([[1.0, 1.0, 0.0]] * 3)
    assert ranks(scores, torch.tensor([0, 1, 2])).tolist() == [0, 1, 2]
    assert scores.argmax(1).tolist() == [0, 0, 0]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_rank_0_is_a_right_answer_among_many_equal_scores(seed: int, classes: int) -> None:
    scores, targets = logits(50, classes, seed, scale=1.0)
    scores = scores.round()
    assert torch.equal(ranks(scores, targets) == 0, scores.argmax(1) == targets)


def test_nothing_is_right_where_there_are_no_numbers() -> None:
    assert ranks(torch.full((2, 6), math.nan), torch.tensor([0, 5])).tolist() == [6, 6]


def by_hand(confidences: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Guo's own formula and bounds, a bin at a time."""
    error = 0.0
    for i in range(bins):
        inside = (confidences > i / bins) & (confidences <= (i + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    return float(error)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(2, 20), st.sampled_from([0.1, 1.0, 5.0, 50.0]))
def test_the_calibration_error_is_that_of_a_loop(seed: int, samples: int, classes: int, scale: float) -> None:
    scores, targets = logits(samples, classes, seed, scale)
    confidences, guesses = scores.softmax(1).max(1)
    ours = Calibration.of(confidences, guesses == targets)
    expected = by_hand(confidences.double().numpy(), (guesses == targets).numpy(), 15)
    assert ours.error == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert ours.counts.sum() == samples


def test_the_calibration_error_is_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    for seed in range(5):
        scores, targets = logits(1000, 7, seed)
        probabilities = scores.double().softmax(1)
        assert probabilities.max() < 1  # which has a bin of its own there
        confidences, guesses = probabilities.max(1)
        theirs = torchmetrics.multiclass_calibration_error(probabilities, targets, num_classes=7, n_bins=15, norm="l1")
        assert Calibration.of(confidences, guesses == targets).error == pytest.approx(theirs.item(), rel=1e-6)


def test_a_bin_has_its_upper_bound_and_empty_ones_have_no_accuracy() -> None:
    calibration = Calibration.of(torch.tensor([0.2, 0.2000001, 1.0]), torch.tensor([True, False, True]), bins=5)
    assert calibration.counts.tolist() == [0, 2, 0, 0, 1] or calibration.counts.tolist() == [1, 1, 0, 0, 1]
    exact = Calibration.of(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), torch.ones(3).bool(), bins=4)
    assert exact.counts.tolist() == [1, 1, 1, 0]
    assert exact.accuracy[3].isnan()
    assert exact.error == pytest.approx(0.5)


def test_brier_is_scikit_learns() -> None:
    scores, targets = logits(300, 5)
    probabilities = scores.double().softmax(1)
    expected = (probabilities - torch.nn.functional.one_hot(targets, 5)).square().sum(1).mean()
    assert brier(probabilities, targets) == pytest.approx(expected.item(), rel=1e-12)
    two = probabilities[:, :2] / probabilities[:, :2].sum(1, keepdim=True)
    assert brier(two, targets % 2) == pytest.approx(2 * sk.brier_score_loss(targets % 2, two[:, 1]), rel=1e-12)


def test_the_most_confused_pairs_come_first() -> None:
    confusion = torch.tensor([[9, 2, 0], [5, 1, 1], [0, 0, 7]])
    assert confused(confusion, 2) == [(1, 0, 5), (0, 1, 2)]
    assert confused(confusion, 10) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert confused(torch.eye(3, dtype=torch.int64), 10) == []


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=80))
def test_operating_points_are_scikit_learns(given: list[tuple[int, bool]]) -> None:
    """Of scores with many ties."""
    scores, positive = torch.tensor([s / 9 for s, _ in given]), torch.tensor([p for _, p in given])
    if positive.all() or not positive.any():
        return
    points = OperatingPoints.of(scores, positive)
    alarms, hits, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(points.false_positives, alarms)
    np.testing.assert_allclose(points.recall, hits)
    precision, recall, _ = sk.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(points.precision.flip(0), precision)
    np.testing.assert_allclose(points.recall.flip(0), recall)
    levels = torch.linspace(0, 1, 11, dtype=torch.float64)
    reachable = [precision[recall >= level].max() for level in levels.tolist()]
    np.testing.assert_allclose(points.precision_at(levels), reachable)


def test_a_thinned_roc_curve_lies_on_the_whole_one() -> None:
    scores, _ = logits(20_000, 1)
    positive = (scores.flatten() + 2 * torch.randn(20_000, generator=torch.Generator().manual_seed(1))) > 1
    points = OperatingPoints.of(scores.flatten(), positive)
    alarms, recall = points.thinned(101)
    assert 80 < len(alarms) <= 101
    assert (alarms[0], recall[0], alarms[-1], recall[-1]) == (0, 0, 1, 1)
    whole = set(zip(points.false_positives.tolist(), points.recall.tolist(), strict=True))
    assert set(zip(alarms.tolist(), recall.tolist(), strict=True)) <= whole
    assert sk.auc(alarms, recall) == pytest.approx(sk.roc_auc_score(positive, scores.flatten()), abs=1e-3)
    few = OperatingPoints.of(torch.tensor([0.1, 0.9]), torch.tensor([False, True]))
    assert [part.tolist() for part in few.thinned(101)] == [[0, 0, 1], [0, 1, 1]]
