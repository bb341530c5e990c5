"""Run folders for the reports' tests: real small runs, and beside them what a test and other commands would leave."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

NAMES = ["<script>alert(1)</script>", "猫と犬", "قطة", "🦊 $x_2$", "</script><b>bold", "a long name " * 12]
NAMES += ["%{x} & co", "<a href='http://x.invalid'>x</a>", "\u202edlive", "nine"]
CELLS = [[0, 0, 30], [0, 3, 6], [1, 1, 36], [2, 2, 35], [3, 3, 30], [3, 0, 7], [9, 9, 36], [9, 1, 1]]
BINS = [
    {"low": i / 5, "high": (i + 1) / 5, "samples": 9 * i, "confidence": i / 5 + 0.1, "accuracy": i / 5}
    for i in range(5)
]
TIME = {"starting": 2.0, "training": 10.0, "waiting_for_data": 4.0, "evaluation": 3.0, "saving": 1.0, "test": 0.5}
TEXT = "Return a <b>new</b> list in 猫 order."
DIFF = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-<script>old</script>\n+new = '猫'\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def copied(run: Path, to: Path, **changes: Any) -> Path:
    """A copy of a run without its checkpoints, with `changes` in its summary."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", "plots", "*.html"))
    change(to, **changes)
    return to


def change(run: Path, **changes: Any) -> None:
    file = run / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def put(run: Path, place: str, content: Any) -> None:
    path = run / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def told_in_full(run: Path, to: Path) -> Path:
    """A run of which all is there, with names that a page may stumble over."""
    changed = {"trainer.max_epochs": 20, "model": "cnn"}
    choices = {"model": "mlp", "data": "digits"}
    git = {"commit": COMMIT, "dirty": True}
    error = None
    copied(run, to, changed=changed, choices=choices, git=git, time=TIME, seconds=20.0, error=error)
    origin = {"split": "test", "epoch": 4, "samples": 181}
    put(to, "plots/confusion.json", origin | {"class_names": NAMES, "cells": CELLS})
    put(to, "plots/calibration.json", origin | {"ece": 0.0345, "bins": BINS})
    image = {"index": 7, "truth": NAMES[0], "guess": NAMES[1], "probability": 0.98, "loss": 5.5, "kind": "image"}
    text = image | {"kind": "text", "text": TEXT, "marks": [[9, 19, 0.5], [23, 27, -1.0]]}
    row = image | {"kind": "tabular", "values": {"radius": 17.25}}
    put(to, "plots/mistakes.json", origin | {"wrong": 3, "mistakes": [image | {"picture": picture()}, text, row]})
    put(to, "uncommitted.diff", DIFF)
    export = {"file": "onnx.onnx", "bytes": 678555, "parity": {"passed": True, "max_error": 3e-7, "agreement": 1.0}}
    put(to, "export/onnx.json", export | {"test": {"acc": 0.9806}})
    return to


def picture() -> str:
    """A grey square as an address."""
    file = io.BytesIO()
    Image.new("L", (16, 16), 128).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
