"""`dlrun plot augment`: every picture in it is, to the bit, what the training's loader gives at that place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine
from matplotlib.figure import Figure
from PIL import Image

from dlrun.build import build
from dlrun.commands.plot import augment as command
from dlrun.config import parse

FAKE = ["data=fake", "data.shape=[3,12,16]", "data.size=150", "data.num_classes=4", "data.batch_size=32"]
FAKE += ["model=mlp", "model.hidden_sizes=[4]", "data.num_workers=0"]
STANDARD = {
    "albumentations": ["augment=standard"],
    "tensor": ["augment=tensor"],
    "strong, blended": ["augment=strong", "augment.mixup=0.4"],
    "alternating": ["augment=none", "augment.backend=tensor", "augment.transforms=[{HorizontalFlip:{alternate:true}}]"],
    "cut short": ["augment=light", "trainer.limit_train_batches=2"],
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Figure, dict[str, Any]]]:
    found: list[tuple[Figure, dict[str, Any]]] = []

    def keep(path: Path, draw: Callable[[], Figure], content: dict[str, Any]) -> int:
        found.append((draw(), content))
        return 0

    monkeypatch.setattr(command, "leave", keep)
    return found


def pixels(figure: Figure, columns: int) -> list[list[np.ndarray[Any, Any] | None]]:
    """Row by row; None where there is no picture."""
    found = [np.asarray(axis.get_images()[0].get_array()) if axis.get_images() else None for axis in figure.axes]
    return [found[start : start + columns] for start in range(0, len(found), columns)]


@pytest.mark.parametrize("kind", STANDARD)
def test_the_pictures_are_the_loaders(
    kind: str, figures: list[Any], compose_config: Callable[..., dict[str, Any]]
) -> None:
    words = [*FAKE, *STANDARD[kind], "seed=7"]
    command.run([*words, "columns=6", "rows=3", "epoch=2"])
    figure, content = figures[0]
    original, *rows = pixels(figure, 6)
    run = build(parse(compose_config(*words)))
    split, spec = run.inputs.splits.train, run.spec
    assert len(content["samples"]) == 6
    missing = changed = 0
    for epoch in (1, 2, 3):  # counted from 0
        batches = list(run.inputs.train.epoch(epoch))
        inputs = np.concatenate([batch.numpy() for batch, _ in batches])  # (N, C, H, W), normalised
        order = run.inputs.train.order(epoch).tolist()
        for column, sample in enumerate(content["samples"]):
            raw = split.inputs[sample["index"]].numpy() / 255  # type: ignore[attr-defined]
            np.testing.assert_allclose(original[column], raw, atol=1e-6)
            drawn, place = rows[epoch - 1][column], sample["seen"][epoch - 1]
            assert place["epoch"] == epoch + 1
            if sample["index"] not in order:
                assert (drawn, place["position"]) == (None, None)
                missing += 1
                continue
            assert place["position"] == order.index(sample["index"])
            given = inputs[place["position"]].astype(np.float64)
            mean, std = np.array(spec.mean)[:, None, None], np.array(spec.std)[:, None, None]
            expected = (given * std + mean).clip(0, 1).transpose(1, 2, 0)
            assert drawn is not None
            np.testing.assert_array_equal(drawn, expected)
            changed += not np.allclose(drawn, raw, atol=1e-3)
    run.inputs.close()
    assert (missing > 0) == (kind == "cut short")
    assert changed > 3
    blends = [place["shares"] for sample in content["samples"] for place in sample["seen"] if "shares" in place]
    assert bool(blends) == ("blended" in kind)
    assert all(sum(shares.values()) == pytest.approx(1, abs=0.02) for shares in blends)
    if blends:
        assert any("%" in axis.get_xlabel() for axis in figure.axes)


def test_titles_rows_and_grey(figures: list[Any]) -> None:
    command.run(["data=digits", "columns=10", "rows=2"])
    figure, content = figures[0]
    titles = [axis.get_title() for axis in figure.axes[:10]]
    assert sorted(titles) == list("0123456789")  # each class once before any twice
    assert titles == [sample["class"] for sample in content["samples"]]
    assert [axis.get_ylabel() for axis in figure.axes[::10]] == ["original", "epoch 1", "epoch 2"]
    assert figure.get_suptitle() == "digits, seed 0: Affine (tensor)"
    assert all(picture.shape == (8, 8) for row in pixels(figure, 10) for picture in row if picture is not None)
    command.run(["data=digits", "columns=1", "rows=1", "seed=1"])
    assert figures[1][1]["samples"] != content["samples"][:1]


def test_nothing_is_augmented(figures: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    command.run(["data=digits", "augment=none", "columns=3", "rows=1"])
    original, seen = pixels(figures[0][0], 3)
    np.testing.assert_allclose(np.stack(original), np.stack(seen), atol=1e-6)  # type: ignore[arg-type]
    assert "nothing is augmented" in capsys.readouterr().err


def test_a_folder_of_pictures_with_long_names(dlrun: CommandLine) -> None:
    for part, count in (("train", 6), ("test", 2)):
        for name in ("a_class_with_a_name_that_is_rather_long_$x_y$", "猫", "b"):
            folder = dlrun.folder / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = np.random.default_rng(number).integers(0, 255, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{number}.png")
    words = ["data=image_folder", "data.root=pets", "data.image_size=[16,24]", "augment=standard", "out=a.png"]
    words += ["data.val_fraction=0.3"]
    result = dlrun("plot", "augment", *words, "columns=3", "rows=1")
    assert result.code == 0, result.err
    assert result.out == "written a.png\nwritten a.json\n"
    content = json.loads((dlrun.folder / "a.json").read_text())
    assert {sample["class"] for sample in content["samples"]} == {
        "a_class_with_a_name_that_is_rather_long_$x_y$",
        "猫",
        "b",
    }
    assert content["augment"]["backend"] == "albumentations"


def test_what_has_no_pictures_is_told_in_words(dlrun: CommandLine) -> None:
    for words, said in [
        (
            ["data=fake", "data.modality=text"],
            "fake is text, of which training changes nothing; there is nothing to see",
        ),
        (["data=breast_cancer"], "breast_cancer is a table, whose rows are no pictures"),
        (["augment=standad"], "unknown augment 'standad'; did you mean 'standard'?"),
        (["rows=0"], "rows: expected a whole number >= 1"),
        (["row=1"], "row: unknown option of dlrun plot augment; did you mean 'rows'?"),
    ]:
        result = dlrun("plot", "augment", *words)
        assert result.code == 2
        assert said in result.err
    assert list(dlrun.folder.iterdir()) == []
