"""What a test finds, against scikit-learn and by hand."""

from __future__ import annotations

import base64
import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import Tensor

from dlrun.data.source import ArraySplit, PixelSplit, TokenSplit
from dlrun.findings import cells, findings, measured, picture
from dlrun.mistakes import predictions
from dlrun.spec import DataSpec

HEAD = {"split": "test", "epoch": 3}


def no_words(tokens: Tensor, classes: Tensor) -> None:
    return None


def predicted(guesses: Tensor, targets: Tensor, classes: int) -> dict[str, Tensor]:
    probabilities = torch.full((len(guesses), classes), 0.21 / (classes - 1))
    probabilities[torch.arange(len(guesses)), guesses] = 0.79
    losses = -probabilities.gather(1, targets.unsqueeze(1)).squeeze(1).log()
    return {"guesses": guesses, "targets": targets, "probabilities": probabilities, "losses": losses}


def test_cells_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    targets, guesses = torch.randint(7, (2, 100), generator=generator)
    matrix = np.zeros((7, 7), int)
    for truth, guess, n in cells(targets, guesses):
        matrix[truth, guess] = n
    np.testing.assert_array_equal(matrix, confusion_matrix(targets, guesses, labels=range(7)))
    assert all(n > 0 for _, _, n in cells(targets, guesses))


def test_of_pictures() -> None:
    targets, guesses = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, 2, 1])
    pixels = torch.arange(4 * 8 * 6 * 3, dtype=torch.uint8).reshape(4, 8, 6, 3)
    said, split = predicted(guesses, targets, 3), PixelSplit(pixels, targets)
    spec = DataSpec("image", (3, 8, 6), ("a", "b", "c"))
    found = findings(said, predictions(said, split, spec.class_names).mistakes, split, spec, no_words, HEAD)
    assert found["confusion"] == HEAD | {
        "samples": 4,
        "class_names": ["a", "b", "c"],
        "cells": [(0, 0, 1), (1, 2, 1), (2, 1, 1), (2, 2, 1)],
    }
    assert found["calibration"]["ece"] == pytest.approx(0.29)  # half are right, all are 79 % sure
    (full,) = [row for row in found["calibration"]["bins"] if row["samples"]]
    assert (full["low"], full["high"], full["accuracy"]) == (pytest.approx(11 / 15), pytest.approx(12 / 15), 0.5)
    assert [m["index"] for m in found["mistakes"]["mistakes"]] == [1, 3]
    assert (found["mistakes"]["wrong"], found["mistakes"]["samples"]) == (2, 4)
    first = found["mistakes"]["mistakes"][0]
    assert (first["truth"], first["guess"], first["kind"]) == ("b", "c", "image")
    image = Image.open(io.BytesIO(base64.b64decode(first["picture"].partition(",")[2])))
    assert image.size == (120, 160)  # 20 times as large
    np.testing.assert_array_equal(np.asarray(image)[::20, ::20], pixels[1].numpy())


def test_a_large_picture_is_made_smaller_and_what_is_none_is_none() -> None:
    values = np.arange(400 * 1000).reshape(400, 1000, 1) % 251
    large = picture(values.astype(np.uint8))
    assert large is not None
    image = Image.open(io.BytesIO(base64.b64decode(large.partition(",")[2])))
    assert image.size == (142, 57)  # squares of seven
    assert np.asarray(image)[3, 4] == round(values[21:28, 28:35].mean())
    for shape in ((1, 1000, 3), (1000, 1, 4)):
        assert picture(np.zeros(shape, np.uint8)) is not None
    assert picture(np.zeros((8, 8, 5), np.uint8)) is None


def test_of_texts(caplog: pytest.LogCaptureFixture) -> None:
    words = ["[PAD]", "[UNK]", "good", "数据", "bad"]
    tokens = torch.tensor([[2, 3, 4, 0], [4, 2, 0, 0]], dtype=torch.int32)
    targets, guesses = torch.tensor([0, 0]), torch.tensor([1, 1])
    split = TokenSplit(tokens, targets, lambda ids: " ".join(words[i] for i in ids if i))
    said, spec = predicted(guesses, targets, 2), DataSpec("text", (4,), ("no", "yes"), vocab_size=5)

    def relevance(tokens: Tensor, classes: Tensor) -> Tensor:
        assert classes.tolist() == [1, 1]
        return tokens.float() - 3  # padding at -3

    worst = predictions(said, split, spec.class_names).mistakes
    found = findings(said, worst, split, spec, relevance, HEAD)["mistakes"]["mistakes"]
    assert [(m["text"], m["marks"]) for m in found] == [
        ("good 数据 bad", [(0, 4, -1.0), (5, 7, 0.0), (8, 11, 1.0)]),
        ("bad good", [(0, 3, 1.0), (4, 8, -1.0)]),
    ]

    def fails(tokens: Tensor, classes: Tensor) -> Tensor:
        raise RuntimeError("has no gradient")

    caplog.set_level(logging.WARNING)
    found = findings(said, worst, split, spec, fails, HEAD)["mistakes"]["mistakes"]
    assert [m["marks"] for m in found] == [[], []]
    assert "has no gradient" in caplog.text


def test_of_a_table() -> None:
    spec = DataSpec("tabular", (2,), ("no", "yes"), mean=(10.0, 0.0), std=(2.0, 1.0))
    targets, guesses = torch.tensor([0]), torch.tensor([1])
    split, said = ArraySplit(torch.tensor([[1.5, -1.0]]), targets), predicted(guesses, targets, 2)
    (found,) = findings(said, predictions(said, split, spec.class_names).mistakes, split, spec, no_words, HEAD)[
        "mistakes"
    ]["mistakes"]
    assert found["values"] == {"feature 1": 13.0, "feature 2": -1.0}
    assert measured([1 / 3, 0], DataSpec("tabular", (2,), ("no", "yes"))) == [0.333333, 0.0]
