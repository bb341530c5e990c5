"""Classification's loss and metrics against closed forms in float64 and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from dlrun.errors import UserError
from dlrun.registry import tasks
from dlrun.spec import DataSpec
from dlrun.tasks import Classification

SPEC = DataSpec("tabular", (6,), ("a", "b", "c", "d"))
TARGETS = torch.tensor([0] * 20 + [1] * 5 + [2] * 14 + [3])
COUNTS = torch.bincount(TARGETS)


def task(**options: Any) -> Classification:
    built: Classification = tasks.build("classification", options, SPEC, COUNTS)
    return built


def logits() -> Tensor:
    return 3 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_hand(logits: Tensor, shares: np.ndarray, smoothing: float, weights: np.ndarray) -> float:
    """Σ over samples and classes of -weight · smoothed share · log probability."""
    exponentials = np.exp(logits.numpy())
    log_probabilities = np.log(exponentials / exponentials.sum(axis=1, keepdims=True))
    smoothed = (1 - smoothing) * shares + smoothing / shares.shape[1]
    return float(-(weights * smoothed * log_probabilities).sum())


def test_there_is_one_task() -> None:
    assert tasks.names() == ["classification"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.0, 5.0]])
def test_the_loss_is_the_weighted_and_smoothed_cross_entropy(
    smoothing: float, soft: bool, weights: list[float] | None
) -> None:
    mixed = np.random.default_rng(0).dirichlet(np.ones(4), size=40)
    targets = torch.from_numpy(mixed) if soft else TARGETS
    shares = mixed if soft else np.eye(4)[TARGETS]
    scaled = np.ones(4)
    if weights is not None:  # to a mean of 1 over the train split
        scaled = np.array(weights) / np.array(weights)[TARGETS].mean()
    classification = task(label_smoothing=smoothing, class_weights=weights)
    if weights is not None:
        classification.class_weights = classification.class_weights.double()
    loss = classification.loss(logits(), targets)
    assert loss.item() == pytest.approx(by_hand(logits(), shares, smoothing, scaled), rel=1e-6)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(4), y=TARGETS.numpy())
    found = task(class_weights="balanced").class_weights
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[TARGETS].mean().item() == pytest.approx(1)


def test_over_the_train_split_the_weighted_loss_is_torchs_weighted_mean() -> None:
    weights = [1.0, 2.0, 0.5, 4.0]
    loss = task(class_weights=weights).loss(logits().float(), TARGETS) / len(TARGETS)
    torch.testing.assert_close(loss, F.cross_entropy(logits().float(), TARGETS, torch.tensor(weights)))


@pytest.mark.parametrize("options", [{}, {"class_weights": "balanced", "label_smoothing": 0.2}])
def test_gradients_of_uneven_micro_batches_add_up(options: dict[str, Any]) -> None:
    classification = task(**options)
    inputs = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    whole, parts = (torch.nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    (classification.loss(inputs @ whole, TARGETS) / 40).backward()
    for chosen in torch.randperm(40, generator=torch.Generator().manual_seed(2)).split([17, 16, 1, 6]):
        (classification.loss(inputs[chosen] @ parts, TARGETS[chosen]) / 40).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


def test_metrics_are_sums_of_the_plain_loss_and_of_right_answers() -> None:
    classification = task(class_weights="balanced", label_smoothing=0.2)  # which evaluation leaves out
    sums: dict[str, float] = {}
    for batch, targets in zip(logits().split([17, 20, 3]), TARGETS.split([17, 20, 3]), strict=True):
        for name, value in classification.evaluate(batch, targets).items():
            sums[name] = sums.get(name, 0) + value.item()
    assert list(sums) == list(classification.metrics)
    probabilities = logits().softmax(dim=1).numpy()
    assert sums["loss"] / 40 == pytest.approx(log_loss(TARGETS, probabilities, labels=range(4)), rel=1e-6)
    assert sums["acc"] / 40 == pytest.approx(accuracy_score(TARGETS, probabilities.argmax(axis=1)))


def test_predictions_are_probabilities_and_losses_per_sample() -> None:
    predicted = task(class_weights="balanced").predict(logits().bfloat16(), TARGETS)
    exact = logits().bfloat16().double().numpy()
    exponentials = np.exp(exact)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predicted["probabilities"], probabilities, rtol=1e-5)
    np.testing.assert_allclose(predicted["losses"], -np.log(probabilities[range(40), TARGETS]), rtol=1e-4, atol=1e-6)
    assert torch.equal(predicted["targets"], TARGETS)


def test_of_mixed_targets_the_larger_share_is_the_right_answer() -> None:
    shares = torch.tensor([[0.7, 0.3, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 0.1, 0.9]])
    answers = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    assert task().correct(answers, shares).item() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, r"task\.class_weights: expected 4 weights, got 2"),
        ({"class_weights": [0.0, 0.0, 0.0, 0.0]}, r"task\.class_weights: every class of the train split has weight 0"),
        ({"class_weights": [1.0, -1.0, 1.0, 1.0]}, r"task\.class_weights: expected .*a number >= 0"),
        ({"class_weights": "balance"}, r"task\.class_weights: expected one of 'balanced' or a list"),
        ({"label_smoothing": 1.0}, r"task\.label_smoothing: expected a number >= 0 and < 1, got 1\.0"),
        ({"label_smooth": 0.1}, r"task\.label_smooth: unknown option; did you mean 'label_smoothing'\?"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task(**options)
