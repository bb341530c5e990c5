"""Recipes against scikit-learn, on the same samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from command_line import CommandLine
from sklearn.datasets import make_classification
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dlrun.data.pydocs import paragraphs

NO_TRACKER = ["tracking=none", "trainer.num_threads=1"]


def accuracy(dlrun: CommandLine, *words: str) -> float:
    result = dlrun(*words, *NO_TRACKER)
    assert result.code == 0, result.err
    return float(dlrun.summary()["test"]["test/acc"])


def split(targets: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    return train_test_split(np.arange(len(targets)), test_size=fraction, stratify=targets, random_state=0)


def test_perceptron_is_logistic_regression(dlrun: CommandLine) -> None:
    inputs, targets = make_classification(
        2000, 20, n_informative=10, n_redundant=0, n_classes=4, class_sep=1.0, random_state=0
    )
    rest, test = split(targets, 0.2)
    train = rest[split(targets[rest], 0.1)[0]]
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(inputs[train], targets[train])
    ours = accuracy(dlrun, "experiment=blobs_perceptron")
    assert abs(ours - reference.score(inputs[test], targets[test])) <= 0.01


def test_words_learned_reach_words_counted(dlrun: CommandLine) -> None:
    """By how much it wins is in the recipe's header: the paragraphs differ a little between versions of Python."""
    texts, labels, _ = paragraphs()
    words, targets = np.array(texts), np.array(labels)
    train, test = split(targets, 0.2)
    reference = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000, C=10))
    reference.fit(words[train], targets[train])
    ours = accuracy(dlrun, "experiment=pydocs_mlp")
    assert ours >= reference.score(words[test], targets[test]) - 0.02


def test_the_default_learns_real_digits(dlrun: CommandLine) -> None:
    assert accuracy(dlrun) >= 0.98
    assert json.loads((Path(dlrun.runs()[-1]) / "summary.json").read_text())["steps"] == 420
