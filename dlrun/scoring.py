"""Scores of a classifier on a split, beyond loss and accuracy: N samples, K classes, in double precision.

They are scikit-learn's, with its rule for a ratio of nothing to nothing (`zero_division=0`): the precision of a class
that was never predicted is 0, and so is the recall of one that has no samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15  # of the calibration error, as Guo et al. have it


def ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """How many classes come before the true one: (N,) int64, 0 where the answer is right.

    scores (N, K), logits or probabilities: of equal ones the first class comes first, as in `argmax`; where they are
    NaN, the true class comes last.
    """
    own = scores.gather(1, targets.unsqueeze(1))  # (N, 1)
    first = torch.arange(scores.shape[1], device=scores.device) < targets.unsqueeze(1)
    return (~(scores <= own) | ((scores == own) & first)).sum(dim=1)


def top_k_accuracy(ranks: Tensor, k: int) -> float:
    """Share of samples whose true class is among the `k` that come first."""
    return (ranks < k).double().mean().item()


def confusion_matrix(targets: Tensor, guesses: Tensor, num_classes: int) -> Tensor:
    """Number of samples by (truth, guess): (K, K) int64."""
    pairs = torch.bincount(targets * num_classes + guesses, minlength=num_classes**2)
    return pairs.view(num_classes, num_classes)


@dataclass(frozen=True)
class ClassScores:
    """What a confusion matrix says of each class: each (K,) float64, but `support` and `predicted`, which count."""

    precision: Tensor  # of the samples that were taken for this class, the share that is of it
    recall: Tensor  # of the samples of this class, the share that was taken for it
    f1: Tensor
    support: Tensor  # samples of this class, (K,) int64
    predicted: Tensor  # samples that were taken for this class, (K,) int64

    @classmethod
    def of(cls, confusion: Tensor) -> ClassScores:
        right, support, predicted = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
        precision, recall, f1 = _ratio(right, predicted), _ratio(right, support), _ratio(2 * right, predicted + support)
        return cls(precision, recall, f1, support, predicted)

    def macro(self) -> dict[str, float]:
        """Means over the classes that there are: those that have samples, or were predicted."""
        return self._mean(((self.support + self.predicted) > 0).double())

    def weighted(self) -> dict[str, float]:
        """Means over the samples' classes."""
        return self._mean(self.support.double())

    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have samples."""
        return self.recall[self.support > 0].mean().item()

    def _mean(self, weights: Tensor) -> dict[str, float]:
        shares = weights / weights.sum()
        return {name: (shares * getattr(self, name)).sum().item() for name in ("precision", "recall", "f1")}


def confused(confusion: Tensor, most: int) -> list[tuple[int, int, int]]:
    """The pairs that are taken for one another most often, at most `most`: (truth, guess, number of samples)."""
    mistakes = confusion.clone().fill_diagonal_(0).flatten()
    order = mistakes.argsort(descending=True, stable=True)[:most]
    return [(*divmod(int(i), len(confusion)), int(mistakes[i])) for i in order if mistakes[i] > 0]


@dataclass(frozen=True)
class Calibration:
    """Whether the model is right as often as it says it is: by bins of its probability for its guess.

    Bin i of B holds what is above i / B, up to (i + 1) / B. Of an empty bin, `accuracy` and `confidence` are NaN.
    """

    counts: Tensor  # (B,) int64
    accuracy: Tensor  # (B,) float64
    confidence: Tensor  # mean probability, (B,) float64

    @classmethod
    def of(cls, confidences: Tensor, right: Tensor, bins: int = BINS) -> Calibration:
        """confidences (N,) in [0, 1]; right (N,) bool."""
        edges = torch.arange(1, bins, dtype=torch.float64) / bins
        index = torch.bucketize(confidences.double(), edges)
        counts = torch.bincount(index, minlength=bins)
        hits = torch.bincount(index, weights=right.double(), minlength=bins)
        sums = torch.bincount(index, weights=confidences.double(), minlength=bins)
        return cls(counts, hits / counts, sums / counts)

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017, "On calibration of modern neural networks", equation 3)."""
        gaps = (self.accuracy - self.confidence).abs() * self.counts / self.counts.sum()
        return gaps[self.counts > 0].sum().item()


def brier(probabilities: Tensor, targets: Tensor) -> float:
    """Mean squared distance from what would have been right (Brier 1950): 0 to 2. probabilities (N, K)."""
    own = probabilities.gather(1, targets.unsqueeze(1)).squeeze(1).double()
    return (probabilities.square().sum(dim=1, dtype=torch.float64) - 2 * own + 1).mean().item()


@dataclass(frozen=True)
class OperatingPoints:
    """One class against the rest, at each probability that may be asked for: (T,) float64 each, the strictest first.

    `recall` is the true positive rate, too. Begins where nothing is taken for the class, and there `precision` is 1.
    """

    recall: Tensor
    precision: Tensor
    false_positives: Tensor  # of the samples that aren't of the class, the share that was taken for it

    @classmethod
    def of(cls, scores: Tensor, positive: Tensor) -> OperatingPoints:
        """scores (N,), the probabilities of the class; positive (N,) bool, of which some are True and some False."""
        order = scores.argsort(descending=True, stable=True)
        scores, positive = scores[order], positive[order]
        last = torch.ones(len(scores), dtype=torch.bool)
        last[:-1] = scores[:-1] != scores[1:]  # equal scores are taken together
        hits, taken = positive.double().cumsum(0)[last], torch.arange(1, len(scores) + 1)[last].double()
        recall, precision = hits / hits[-1], hits / taken
        false_positives = (taken - hits) / (len(scores) - hits[-1])
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        return cls(torch.cat([zero, recall]), torch.cat([one, precision]), torch.cat([zero, false_positives]))

    def precision_at(self, recalls: Tensor) -> Tensor:
        """The best precision at each of `recalls` (R,) or above it: the interpolated precision of TREC and COCO."""
        reachable = self.precision.flip(0).cummax(0).values.flip(0)
        return reachable[torch.searchsorted(self.recall, recalls)]

    def thinned(self, most: int) -> tuple[Tensor, Tensor]:
        """(false_positives, recall) of at most `most` points, both ends among them, evenly spaced along the curve."""
        if len(self.recall) <= most:
            return self.false_positives, self.recall
        way = self.false_positives + self.recall  # from 0 to 2
        chosen = torch.searchsorted(way, torch.linspace(0, 2, most, dtype=torch.float64)).clamp_max(len(way) - 1)
        chosen = chosen.unique()
        return self.false_positives[chosen], self.recall[chosen]


def _ratio(some: Tensor, of: Tensor) -> Tensor:
    """some / of, and 0 of nothing."""
    return some.double() / of.clamp_min(1)
