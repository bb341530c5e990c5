"""Small runs, one for each kind of data, trained in this process in some seconds."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlrun.cli import main

QUICK = ["tracking=none", "plots=false", "augment=none", "trainer.enable_progress_bar=false"]
RUNS = {
    "digits": ["model=mlp", "model.hidden_sizes=[32]", "data=digits", "trainer.max_epochs=4"],
    "large_digits": [
        "model=cnn",
        "model.channels=[4]",
        "data=digits",
        "data.image_size=[12,10]",
        "trainer.max_steps=5",
    ],
    "photos": ["model=cnn", "model.channels=[4]", "data=image_folder", "data.root=pets", "data.image_size=[16,20]"],
    "pydocs": ["model=lstm", "model.hidden_size=8", "data=pydocs", "data.max_length=12", "data.limit=300"],
    "reviews": ["model=mlp", "model.hidden_sizes=[8]", "data=text_csv", "data.root=.", "data.file=reviews.csv"],
    "cancer": ["model=mlp", "model.hidden_sizes=[8]", "data=breast_cancer", "trainer.max_epochs=3"],
}
RUNS["large_digits"] += ["trainer.max_steps=5"]
RUNS["photos"] += ["trainer.max_epochs=2", "trainer.tta=flip"]
RUNS["pydocs"] += ["trainer.max_epochs=1"]
RUNS["reviews"] += ["data.text_column=review", "trainer.max_epochs=2"]


def train_each_kind(folder: Path, names: Iterable[str] = RUNS) -> None:
    """The runs of RUNS below `folder`, and pets/ and reviews.csv that two of them were trained on."""
    _pets(folder / "pets")
    with (folder / "reviews.csv").open("w", newline="") as file:
        words = {"good": "a very good film", "bad": "a bad and boring film"}
        rows = [[f"{text}, number {i}", label] for i in range(30) for label, text in words.items()]
        csv.writer(file).writerows([["review", "label"], *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in names:
            patch.setattr("sys.argv", ["dlrun", *RUNS[name], *QUICK, f"hydra.run.dir={name}"])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0, name


def _pets(folder: Path) -> None:
    """Red, green and blue noise: JPEG and PNG of several sizes, the largest decoded at a half."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for place, name in enumerate(("red", "green", "blue")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                size = random.integers(14, 60, 2)
                pixels = random.normal(90, 50, (*size, 3))
                pixels[..., place] += 60
                suffix = ".jpg" if number % 3 else ".png"
                path = folder / part / name / f"{number}{suffix}"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
