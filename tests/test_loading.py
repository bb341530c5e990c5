"""Samples that belong to no data set, through `load_run`: as the run's own splits have them, and judged as there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer

import dlrun
from dlrun.data import pydocs
from dlrun.data.columns import read_columns
from dlrun.data.image_folder import FileSplit
from dlrun.data.source import ArraySplit, DataOptions
from dlrun.data.vision import PixelSplit
from dlrun.errors import UserError
from dlrun.loading import LoadedRun


@pytest.fixture
def runs(small_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(small_runs)
    return small_runs


def test_split(run: LoadedRun) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole test split as one batch, in its own order: inputs for the model, and targets."""
    batches = run.batches("test")
    batches.batch_size = len(batches.split)
    inputs, targets = next(iter(batches.epoch(0)))
    back = batches.order(0).argsort()
    return inputs[back], targets[back]


test_split.__test__ = False  # type: ignore[attr-defined]


def carved(run: LoadedRun, targets: list[int] | np.ndarray) -> list[int]:
    """Which samples of the whole set are in the test split."""
    data = run.config.data
    common = DataOptions(Path(data.root), data.val_fraction, data.split_seed)
    whole = ArraySplit(torch.arange(len(targets)), torch.as_tensor(targets))
    fraction = run.config.dataset.options["test_fraction"]
    return common.carve(whole, fraction).test.inputs.tolist()  # type: ignore[attr-defined]


def test_digits_as_arrays_images_and_files(runs: Path, tmp_path: Path) -> None:
    run = dlrun.load_run("digits")
    expected, _ = test_split(run)
    split = run.batches("test").split
    arrays = [split.show(i) for i in range(len(split))]
    images = [Image.fromarray(array[..., 0]) for array in arrays]
    paths = [tmp_path / f"{i}.png" for i in range(len(split))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    for samples in (arrays, np.stack(arrays), images, paths, [str(path) for path in paths]):
        assert torch.equal(run.preprocess(samples), expected)
    assert torch.equal(run.preprocess(paths[3]), expected[3:4])


def test_arrays_that_are_resized(runs: Path) -> None:
    run = dlrun.load_run("large_digits")
    split = run.batches("test").split
    assert isinstance(split, PixelSplit)
    given = run.preprocess([pixels.numpy() for pixels in split.inputs])
    assert given.shape == (len(split), 1, 12, 10)
    one_level = 1 / 255 / run.spec.std[0]
    assert (given - test_split(run)[0]).abs().max() <= one_level * 1.001


def test_files_of_an_image_folder(runs: Path) -> None:
    run = dlrun.load_run("photos")
    split = run.batches("test").split
    assert isinstance(split, FileSplit)
    assert {path.suffix for path in split.paths} == {".jpg", ".png"}
    inputs, targets = test_split(run)
    assert torch.equal(run.preprocess(split.paths), inputs)
    # Judged as by the training, whose test-time augmentation is the mean of a picture's logits and its mirror's.
    with torch.inference_mode():
        logits = 0.5 * (run.model(inputs) + run.model(inputs.flip(-1)))
    assert [p.index for p in run.predict(split.paths)] == logits.argmax(1).tolist()
    by_hand = (torch.tensor([p.index for p in run.predict(split.paths)]) == targets).double().mean().item()
    assert by_hand == run.folder.read_summary()["test"]["test/acc"]


def test_texts(runs: Path) -> None:
    run = dlrun.load_run("pydocs", overrides=["data.num_workers=0"])
    texts, labels, _ = pydocs.paragraphs()
    chosen = carved(run, labels)
    inputs, _ = test_split(run)  # limited to 300 of them
    everything = run.preprocess([texts[i] for i in chosen])
    rows = np.random.default_rng(run.config.data.split_seed).permutation(len(chosen))[:300]
    assert torch.equal(everything[torch.from_numpy(np.sort(rows))], inputs)


def test_texts_of_a_table(runs: Path) -> None:
    run = dlrun.load_run("reviews")
    texts, labels = read_columns(Path("reviews.csv"), "review", "label")
    chosen = carved(run, [run.class_names.index(label) for label in labels])
    assert torch.equal(run.preprocess([texts[i] for i in chosen]), test_split(run)[0])


def test_rows_of_a_table(runs: Path) -> None:
    run = dlrun.load_run("cancer")
    features, targets = load_breast_cancer(return_X_y=True)
    chosen = carved(run, targets)
    expected, _ = test_split(run)
    for samples in (features[chosen], features[chosen].tolist(), list(features[chosen])):
        assert torch.equal(run.preprocess(samples), expected)


@pytest.mark.parametrize("name", ["digits", "cancer"])
def test_probabilities_are_the_softmax_of_the_logits(runs: Path, name: str) -> None:
    run = dlrun.load_run(name)
    split = run.batches("test").split
    if name == "digits":
        samples = [split.show(i) for i in range(300)]  # more than fit into a batch
        assert run.batch_size < 300
    else:
        samples = load_breast_cancer().data.tolist()
    with torch.inference_mode():
        logits = run.model(run.preprocess(samples)).double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predictions = run.predict(samples, top_k=3)
    assert len(predictions) == len(samples)
    for prediction, shares in zip(predictions, expected, strict=True):
        order = np.argsort(-shares)[:3]
        assert [n for n, _ in prediction.top] == [run.class_names[i] for i in order]
        assert np.allclose([share for _, share in prediction.top], shares[order], atol=1e-6)
        assert (prediction.class_name, prediction.index) == (run.class_names[order[0]], order[0])
        assert prediction.probability == prediction.top[0][1]


def test_the_data_is_not_needed(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = runs / "pets/test/red/0.png"
    monkeypatch.chdir(tmp_path)  # where there are no pets
    run = dlrun.load_run(runs / "photos")
    with pytest.raises(UserError, match=r"data\.root: no folder"):
        run.batches("test")
    assert [p.class_name for p in run.predict([picture])] == [run.predict(picture)[0].class_name]
    assert run.predict([]) == []


def test_what_is_asked_must_make_sense(runs: Path) -> None:
    run = dlrun.load_run("digits")
    with pytest.raises(UserError, match="top_k: expected a whole number >= 1, got 0"):
        run.predict(np.zeros((8, 8), np.uint8), top_k=0)
    with pytest.raises(UserError, match=r"sample 1: data: can't read the image nowhere.png"):
        run.predict(["pets/test/red/0.png", "nowhere.png"])
    assert len(run.predict(np.zeros((8, 8), np.uint8), top_k=99)[0].top) == 10
