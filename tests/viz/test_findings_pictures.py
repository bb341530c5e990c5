"""Confusion, calibration, mistakes: what is in the figures."""

from __future__ import annotations

import base64
import io
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from dlrun.viz import calibration, confusion, mistakes
from dlrun.viz.fonts import advice
from dlrun.viz.pictures import DPI, LeftOut
from dlrun.viz.style import written_in

HEAD = {"split": "test", "epoch": 7}


def told(count: int) -> dict[str, Any]:
    """Of each class 50 samples, 40 of them right, 7 taken for the next class and 3 for the one after that."""
    cells = [[i, (i + step) % count, n] for i in range(count) for step, n in ((0, 40), (1, 7), (2, 3))]
    cells[1][2] += 5
    return HEAD | {"samples": 50 * count + 5, "class_names": [f"class {i}" for i in range(count)], "cells": cells}


def words(drawn: Figure) -> list[str]:
    return [text.get_text() for axis in drawn.axes for text in axis.texts]


def overlapping(texts: list[Any], drawn: Figure) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [(a, b) for (a, one), (b, other) in itertools.pairwise(boxes) if one.shrunk(0.98, 0.98).overlaps(other)]


@pytest.mark.parametrize("count", [3, 10, 100, 1000])
def test_confusion(count: int) -> None:
    with written_in():
        drawn = confusion.figure(told(count))
        drawn.draw_without_rendering()
    axis = drawn.axes[0]
    assert drawn.get_suptitle().startswith(f"confusion on test, {50 * count + 5:,} samples, epoch 7: ")
    shown = np.ma.filled(axis.images[0].get_array(), 0.0)  # type: ignore[arg-type]
    if count <= 100:
        assert shown.shape == (count, count)
        assert shown[2, 2] == pytest.approx(40 / 50)
        assert shown[0, 1] == pytest.approx(12 / 55)
    else:
        assert shown.shape == (200, 200), "blocks of 5 × 5"
        assert shown[3, 3] == pytest.approx(40 / 50)
        assert axis.get_title() == "a point is the largest share among 5 × 5 classes"
    if count <= 10:
        assert sorted(int(text) for text in words(drawn)) == sorted(n for _, _, n in told(count)["cells"])
    else:
        assert len(drawn.axes[1].patches) == 20
        assert words(drawn)[0] == "class 0  taken for  class 1: 12"
        assert overlapping(drawn.axes[1].texts, drawn) == []
    for side in (axis.xaxis, axis.yaxis):
        assert overlapping(side.get_ticklabels(), drawn) == []


def test_calibration_is_what_was_counted() -> None:
    rows = [(0.4, 0.6, 10, 0.5, 0.7), (0.6, 0.8, 0, None, None), (0.8, 1.0, 30, 0.95, 0.9)]
    names = ("low", "high", "samples", "confidence", "accuracy")
    found = HEAD | {"samples": 40, "ece": 0.0875, "bins": [dict(zip(names, row, strict=True)) for row in rows]}
    drawn = calibration.figure(found)
    assert drawn.get_suptitle() == "calibration on test, 40 samples, epoch 7: ECE 8.75 %"
    right, gaps = drawn.axes[0].containers
    assert [bar.get_height() for bar in right] == [0.7, 0.9]  # type: ignore[attr-defined]
    assert [bar.get_y() + bar.get_height() for bar in gaps] == pytest.approx([0.5, 0.95])  # type: ignore[attr-defined]
    assert [text.get_text() for text in drawn.axes[1].texts] == ["10", "30"]
    with pytest.raises(LeftOut):
        calibration.figure(found | {"bins": []})
    assert calibration.figure(found | {"ece": None}).get_suptitle().endswith("ECE isn't a number")


def entry(**more: Any) -> dict[str, Any]:
    return {"index": 3, "truth": "cat", "guess": "$dog$", "probability": 0.981, "loss": 4.0, **more}


def test_pictures_are_shown_as_they_are() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    data = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    entries = [entry(kind="image", picture=data), entry(kind="image", picture=None)]
    drawn = mistakes.figure(HEAD | {"samples": 9, "wrong": 2, "mistakes": entries})
    assert drawn.get_suptitle() == "the worst mistakes, largest loss first: 2 of 9 samples are wrong (test, epoch 7)"
    shown = drawn.axes[0].images[0].get_array()
    np.testing.assert_allclose(np.asarray(shown)[..., :3] * 255, pixels, atol=1e-3)
    assert drawn.axes[0].get_title() == "truth: cat\nanswer: $dog$ (98 %)"
    assert "no picture" in words(drawn)[0]


def test_words_of_a_text_are_marked() -> None:
    text = "good 数据 <b>bad</b> " + "word " * 200
    marks = [[0, 4, -1.0], [5, 7, 0.5], [8, 18, 0.25]]
    entries = [entry(kind="text", text=text, marks=marks), entry(kind="text", text="a " * 3, marks=[])]
    with written_in():
        drawn = mistakes.figure(HEAD | {"samples": 9, "wrong": 2, "mistakes": entries})
    said = words(drawn)
    assert {"good", "数据", "<b>bad</b>", "…"} <= set(said)
    boxes = [patch for patch in drawn.axes[0].patches if isinstance(patch, Rectangle)][2:]  # behind the legend's two
    assert [(box.get_x(), box.get_width()) for box in boxes] == [(0, 4), (5, 4), (10, 10)], "Chinese is two wide"
    assert [box.get_facecolor()[:3] for box in boxes[1:]] != [boxes[0].get_facecolor()[:3]] * 2
    assert [box.get_alpha() for box in boxes] == pytest.approx([0.85, 0.425, 0.2125])


def test_a_mark_is_as_wide_as_its_word() -> None:
    word = "environment" * 6
    drawn = mistakes.figure(HEAD | {"samples": 9, "wrong": 1, "mistakes": [entry(kind="text", text=word, marks=[])]})
    drawn.set_dpi(DPI)
    drawn.draw_without_rendering()  # type: ignore[no-untyped-call]
    (axis,) = drawn.axes
    text = next(text for text in axis.texts if text.get_text() == word)
    (left, _), (right, _) = axis.transData.transform([(0, 0), (len(word), 0)])
    assert text.get_window_extent().width == pytest.approx(right - left, rel=0.015)


def test_a_number_stays_behind_a_name_that_is_read_from_right_to_left() -> None:
    drawn = mistakes.figure(HEAD | {"samples": 9, "wrong": 1, "mistakes": [entry(kind="image", guess="قطة")]})
    assert drawn.axes[0].get_title() == "truth: cat\nanswer: قطة\u200e (98 %)"


def test_rows_of_a_table() -> None:
    values = {f"feature {i}": i / 7 for i in range(1, 31)}
    drawn = mistakes.figure(HEAD | {"samples": 9, "wrong": 1, "mistakes": [entry(kind="tabular", values=values)]})
    (table,) = drawn.axes[0].tables
    assert table[0, 2].get_text().get_text() == "feature 1"
    assert table[1, 3].get_text().get_text() == "0.2857"
    assert drawn.axes[0].get_title() == "the first 10 of 30 features"
    with pytest.raises(LeftOut):
        mistakes.figure(HEAD | {"samples": 9, "wrong": 0, "mistakes": []})


def test_a_font_that_lacks_is_named_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.viz.style._boxes", set())
    unwritten = "\ue000"  # of private use: no font of those has it
    for _ in range(2):
        with written_in():
            drawn = Figure()
            drawn.text(0, 0, f"a{unwritten}")
            drawn.draw_without_rendering()
    assert len(caplog.messages) == 1
    assert unwritten in caplog.messages[0]
    assert "fonts-noto-cjk" in advice("数")
    assert "Noto Sans Thai" in advice("ก")
    assert "fonts-noto-cjk" not in advice("ก")
