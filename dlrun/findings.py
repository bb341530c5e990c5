"""What a test finds, as plain values for pictures and reports: who is taken for whom, how sure, and the worst mistakes.

N samples, K classes.
"""

from __future__ import annotations

import base64
import logging
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlrun.data.source import Split
from dlrun.scoring import Calibration
from dlrun.spec import PAD, DataSpec
from dlrun.tracking import Mistake

log = logging.getLogger("dlrun")

MOST = 16  # mistakes
SIDE = 160  # pixels of a picture's longer side: a larger one is made smaller, a tiny one is enlarged

Relevance = Callable[[Tensor, Tensor], Tensor | None]  # tokens (B, L), classes (B,) → (B, L): `word_relevance`
Findings = dict[str, dict[str, Any]]  # by the name of their picture


def findings(
    predicted: Mapping[str, Tensor],
    mistakes: Sequence[Mistake],
    split: Split,
    spec: DataSpec,
    relevance: Relevance,
    head: Mapping[str, Any],
) -> Findings:
    """Of what `Evaluator.examine` says of a split: the contents of confusion, calibration and mistakes .json.

    `head` begins each of them: the split's name and the epoch. Raises what the model raises in a second look.
    """
    targets, guesses = predicted["targets"], predicted["guesses"]
    head = {**head, "samples": len(targets)}
    shown = shown_mistakes(mistakes[:MOST], predicted, split, spec, relevance)
    return {
        "confusion": {**head, "class_names": list(spec.class_names), "cells": cells(targets, guesses)},
        "calibration": {**head, **calibration(predicted)},
        "mistakes": {**head, "wrong": int((guesses != targets).sum()), "mistakes": shown},
    }


def cells(targets: Tensor, guesses: Tensor) -> list[tuple[int, int, int]]:
    """(truth, guess, number of samples) where there are some; a matrix of K² would have no room for many classes."""
    pairs, counts = torch.stack([targets, guesses], dim=1).unique(dim=0, return_counts=True)
    return [(truth, guess, n) for (truth, guess), n in zip(pairs.tolist(), counts.tolist(), strict=True)]


def calibration(predicted: Mapping[str, Tensor]) -> dict[str, Any]:
    """`Calibration` of the answers, by bins."""
    guesses = predicted["guesses"]
    confidences = predicted["probabilities"].gather(1, guesses.unsqueeze(1)).squeeze(1)
    bins = Calibration.of(confidences, guesses == predicted["targets"])
    edges = [i / len(bins.counts) for i in range(len(bins.counts) + 1)]
    columns = (edges[:-1], edges[1:], bins.counts.tolist(), bins.confidence.tolist(), bins.accuracy.tolist())
    names = ("low", "high", "samples", "confidence", "accuracy")
    return {"ece": bins.error, "bins": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]}


def shown_mistakes(
    mistakes: Sequence[Mistake], predicted: Mapping[str, Tensor], split: Split, spec: DataSpec, relevance: Relevance
) -> list[dict[str, Any]]:
    """Each as a person can look at it: a picture, a text with marks, or values by name."""
    marks = _marks(mistakes, predicted, split, relevance) if spec.modality == "text" else [[] for _ in mistakes]
    found = []
    for mistake, marked in zip(mistakes, marks, strict=True):
        entry = {name: getattr(mistake, name) for name in ("index", "truth", "guess", "probability", "loss")}
        entry["kind"] = spec.modality
        if spec.modality == "image":
            entry["picture"] = picture(np.asarray(mistake.sample))
        elif spec.modality == "text":
            entry |= {"text": str(mistake.sample), "marks": marked}
        else:
            entry["values"] = {f"feature {i}": value for i, value in enumerate(measured(mistake.sample, spec), 1)}
        found.append(entry)
    return found


def measured(row: Any, spec: DataSpec) -> list[float]:
    """A row of a table as it was before it was standardised, if it was; six digits."""
    values = np.asarray(row, dtype=np.float64)
    values = values * np.array(spec.std) + np.array(spec.mean) if spec.mean else values
    return [float(f"{value:.6g}") for value in values.ravel()]


def picture(pixels: np.ndarray) -> str | None:
    """pixels (H, W, C) uint8 as a PNG in a data URI, each as a square of several where they are few.

    None for what is no picture to a person, such as five channels.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype != np.uint8:
        return None
    times, parts = max(1, SIDE // max(pixels.shape[:2])), -(-max(pixels.shape[:2]) // SIDE)
    if times > 1:
        pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    elif parts > 1:  # means of squares
        height, width = (max(1, side // parts) for side in pixels.shape[:2])
        square = pixels[: height * parts, : width * parts]
        rows, columns = square.shape[0] // height, square.shape[1] // width
        pixels = square.reshape(height, rows, width, columns, -1).mean(axis=(1, 3)).round().astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()


def _png(pixels: np.ndarray) -> bytes:
    """pixels (H, W, C) uint8. Pillow would be one more library that a training imports."""
    height, width, channels = pixels.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _marks(
    mistakes: Sequence[Mistake], predicted: Mapping[str, Tensor], split: Split, relevance: Relevance
) -> list[list[tuple[int, int, float]]]:
    """(first character, one behind the last, weight from -1 to 1) of each word; none where they can't be told."""
    if not mistakes:
        return []
    indices = torch.tensor([mistake.index for mistake in mistakes])
    tokens = split.fetch(indices)
    try:
        weights = relevance(tokens, predicted["guesses"][indices])
    except Exception as error:  # an operation without a gradient, in somebody's own model
        log.debug("marks", exc_info=True)
        log.warning("mistakes: which words they are due to can't be told (%s: %s)", type(error).__name__, error)
        weights = None
    if weights is None:
        return [[] for _ in mistakes]
    lengths = (tokens.cpu() != PAD).sum(dim=1).tolist()
    return [
        _spans(str(m.sample), row[:length]) for m, row, length in zip(mistakes, weights.tolist(), lengths, strict=True)
    ]


def _spans(text: str, weights: Sequence[float]) -> list[tuple[int, int, float]]:
    """`text` is words with a space between any two, as the tokens are shown; the greatest weight becomes 1 or -1."""
    words, most = text.split(" "), max(map(abs, weights), default=0.0)
    if len(words) != len(weights) or not 0 < most < float("inf"):
        return []
    spans, start = [], 0
    for word, weight in zip(words, weights, strict=True):
        spans.append((start, start + len(word), round(weight / most, 3)))
        start += len(word) + 1
    return spans
