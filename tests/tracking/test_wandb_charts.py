"""What a run's W&B page shows of it: read back from what was really written, and held against scikit-learn."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from test_wandb_tracker import ROW, summary, tracker
from wandb_server import RecordedRun, WandbServer

from dlrun.errors import UserError
from dlrun.tracking import Mistake, Predictions
from dlrun.tracking.tensorboard import TensorBoard
from dlrun.tracking.tensorboard import tell as tell_tensorboard
from dlrun.tracking.wandb import session
from dlrun.tracking.wandb.charts import EXAMPLES, LONGEST_SIDE, LONGEST_TEXT, MOST_PAIRS, POINTS, charts
from dlrun.tracking.wandb.parts import numbers, parts


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "PATIENCE", 10.0)
    yield
    wandb.teardown()


def said(classes: int, samples: int, show: Callable[[int], Any] | None = None) -> Predictions:
    """Answers that are right more often than not."""
    random = np.random.default_rng(0)
    truths = random.integers(0, classes, samples)
    logits = random.normal(0, 2, (samples, classes)).astype(np.float32)
    logits[np.arange(samples), truths] += 3
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    guesses = probabilities.argmax(1)
    wrong = (guesses != truths).nonzero()[0][:32]
    show = show or (lambda index: f"text {index}")
    mistakes = [Mistake(int(i), show(int(i)), "a", "b", 0.9, 2.0) for i in wrong]
    names = [f"class {number}" for number in range(classes)]
    return Predictions(names, truths.tolist(), guesses.tolist(), mistakes, "test", probabilities, show)


def png(path: Path, size: tuple[int, int] = (30, 20)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)).save(path)
    return path


def table(run: RecordedRun, name: str) -> dict[str, Any]:
    found = [content for path, content in run.files.items() if path.startswith(f"media/table/test/{name}_")]
    assert len(found) == 1, list(run.files)
    return json.loads(found[0])


def curve(run: RecordedRun, name: str, of: str) -> np.ndarray:
    return np.array([[x, y] for label, x, y in table(run, name)["data"] if label == of])


def test_charts_say_what_scikit_learn_says(tmp_path: Path, server: WandbServer) -> None:
    predictions = said(4, 400)
    run = tracker(tmp_path, "mine")
    run.epoch(ROW)
    run.predictions(predictions)
    run.finish(summary(0))
    wandb.teardown()
    told = server.runs["mine"]
    truths, guesses = np.array(predictions.truths), np.array(predictions.guesses)
    probabilities = predictions.probabilities
    assert probabilities is not None

    cells = table(told, "confusion_matrix")["data"]
    expected = sk.confusion_matrix(truths, guesses).flatten().tolist()
    assert [count for _, _, count in cells] == expected

    for number, name in enumerate(predictions.class_names):
        positive = truths == number
        alarms, hits, _ = sk.roc_curve(positive, probabilities[:, number], drop_intermediate=False)
        roc = curve(told, "roc", name)
        assert len(roc) <= POINTS
        assert {tuple(p) for p in roc.tolist()} <= set(zip(alarms.tolist(), hits.tolist(), strict=True))
        assert sk.auc(roc[:, 0], roc[:, 1]) == pytest.approx(sk.auc(alarms, hits), abs=0.01)
        precision, recall, _ = sk.precision_recall_curve(positive, probabilities[:, number])
        found = curve(told, "precision_recall", name)
        assert len(found) == POINTS
        reachable = [precision[recall >= level].max() for level in found[:, 0]]
        np.testing.assert_allclose(found[:, 1], reachable)

    share, sure = calibration_curve(truths == guesses, probabilities.max(1), n_bins=15)
    lines = table(told, "calibration")["data"]
    ours = np.array([[x, y] for x, key, y in lines if key == "this model"])
    np.testing.assert_allclose(ours, np.stack([sure, share], 1), rtol=1e-5)

    rows = table(told, "predictions")
    named = [f"p({name})" for name in predictions.class_names]
    assert rows["columns"] == ["index", "sample", "truth", "guess", "right", "probability", *named]
    assert [row[0] for row in rows["data"]] == [400 * i // EXAMPLES for i in range(EXAMPLES)]
    assert {row[4] for row in rows["data"]} == {True, False}
    for index, text, truth, guess, right, probability, *shares in rows["data"]:
        assert (text, truth, guess) == (f"text {index}", f"class {truths[index]}", f"class {guesses[index]}")
        assert right == (truths[index] == guesses[index])
        np.testing.assert_allclose(
            [probability, *shares], [probabilities[index].max(), *probabilities[index]], rtol=1e-6
        )
    charted = told.raw_config["_wandb"]["value"]["visualize"]
    kinds = {key: chart["panel_config"]["panelDefId"] for key, chart in charted.items()}
    assert kinds == {
        "test/confusion_matrix": "wandb/confusion_matrix/v1",
        "test/precision_recall": "wandb/area-under-curve/v0",
        "test/roc": "wandb/area-under-curve/v0",
        "test/calibration": "wandb/lineseries/v0",
    }


def test_what_is_sent_of_a_thousand_classes_is_bounded(tmp_path: Path, server: WandbServer) -> None:
    predictions = said(1000, 3000)
    run = tracker(tmp_path, "many")
    run.predictions(predictions)
    run.finish(summary(0))
    wandb.teardown()
    told = server.runs["many"]
    confused = table(told, "confused")["data"]
    assert 0 < len(confused) <= MOST_PAIRS
    counts = sk.confusion_matrix(predictions.truths, predictions.guesses, labels=range(1000))
    assert all(counts[int(t.split()[1]), int(g.split()[1])] == n > 0 and t != g for t, g, n in confused)
    rows = table(told, "predictions")
    assert rows["columns"][-1] == "likeliest"
    assert rows["data"][0][-1].startswith(f"{rows['data'][0][3]} {100 * rows['data'][0][5]:.1f} %, class ")
    assert not any("roc" in path for path in told.files)
    assert sum(map(len, told.files.values())) < 300_000


def test_samples_are_cut_to_a_size() -> None:
    def cell(sample: Any) -> Any:
        half = np.full((1, 2), 0.5, np.float32)
        predictions = Predictions(["a", "b"], [0], [1], [], "eval/x", half, lambda _: sample)
        ((_, shown, *_),) = charts(predictions)["eval/x/predictions"].data
        return shown

    random = np.random.default_rng(0)
    photo, digit = (random.integers(0, 255, shape).astype(np.uint8) for shape in ((900, 600, 3), (8, 8, 1)))
    assert cell(photo).image.size == (round(LONGEST_SIDE * 2 / 3), LONGEST_SIDE)
    np.testing.assert_array_equal(np.asarray(cell(digit).image), digit[..., 0].repeat(8, 0).repeat(8, 1))
    assert cell(random.random((20, 20, 2))).image.size == (80, 80)
    assert len(cell("word " * 10_000)) == LONGEST_TEXT
    numbers = cell(np.arange(200.0)).split(", ")
    assert (len(numbers), numbers[:2], numbers[-1]) == (65, ["0", "1"], "…")


def test_a_sample_that_cannot_be_read_is_left_out() -> None:
    def show(index: int) -> str:
        if index == 1:
            raise UserError("gone")
        return "here"

    half = np.full((3, 2), 0.5, np.float32)
    shown = charts(Predictions(["a", "b"], [0, 1, 0], [0, 1, 0], [], "test", half, show))["test/predictions"]
    assert [row[0] for row in shown.data] == [0, 2]


def test_a_class_without_samples_has_no_curve() -> None:
    half = np.full((3, 2), 0.5, np.float32)
    shown = charts(Predictions(["a", "b"], [0, 0, 0], [0, 1, 0], [], "test", half, None))
    assert sorted(shown) == ["test/calibration", "test/confusion_matrix", "test/mistakes"]


def test_plots_arrive_as_the_files_that_they_are(tmp_path: Path, server: WandbServer) -> None:
    drawn = [png(tmp_path / "plots" / f"{name}.png") for name in ("curves", "confusion")]
    run = tracker(tmp_path, "drawn")
    run.epoch(ROW)
    (tmp_path / "plots" / "broken.png").write_bytes(drawn[0].read_bytes()[:50])
    run.plots([*drawn, tmp_path / "plots" / "broken.png", tmp_path / "plots" / "mistakes.png"])  # which wasn't drawn
    run.plots([])
    run.finish(summary(0))
    wandb.teardown()
    told = server.runs["drawn"]
    (row,) = [row for row in told.history if "plots/curves" in row]
    assert {name for name in row if name.startswith("plots/")} == {"plots/curves", "plots/confusion"}
    for path in drawn:
        sent = told.files[row[f"plots/{path.stem}"]["path"]]
        assert sent == path.read_bytes()
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sent))), np.asarray(Image.open(path)))


def test_offline_it_is_all_in_the_runs_folder(tmp_path: Path) -> None:
    drawn, predictions = png(tmp_path / "plots" / "curves.png"), said(3, 50)
    run = tracker(tmp_path, "quiet", mode="offline")
    run.epoch(ROW)
    run.predictions(predictions)
    run.plots([drawn])
    run.finish(summary(0))
    wandb.teardown()
    (part,) = parts(tmp_path, "quiet")
    rows = list(part.rows().values())
    logged = [item for row in rows for item in row.item if len(item.nested_key) == 2]
    items: dict[str, dict[str, Any]] = {}
    for item in logged:
        items.setdefault(item.nested_key[0], {})[item.nested_key[1]] = json.loads(item.value_json)
    assert [sorted(numbers(row)) for row in rows[1:]] == [["epoch"], ["epoch"]], "their sizes are no metrics"
    files = part.file.parent / "files"
    assert (files / items["plots/curves"]["path"]).read_bytes() == drawn.read_bytes()
    cells = json.loads((files / items["test/confusion_matrix_table"]["path"]).read_text())["data"]
    assert [n for *_, n in cells] == sk.confusion_matrix(predictions.truths, predictions.guesses).flatten().tolist()
    tables = {"mistakes", "confusion_matrix_table", "precision_recall_table", "roc_table", "calibration_table"}
    assert {f"test/{name}" for name in (*tables, "predictions")} <= items.keys()


def csv_of(folder: Path, *rows: tuple[int, float]) -> None:
    lines = [f"{epoch},{10 * epoch},{acc}" for epoch, acc in rows]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/acc", *lines]) + "\n")


def test_the_summary_has_the_best_epoch_while_the_run_goes_on(tmp_path: Path, server: WandbServer) -> None:
    def kept() -> tuple[Any, Any]:
        return run.best.get("epoch"), run.best.get("val/acc")

    run = tracker(tmp_path, "mine")
    for epoch, acc in ((1, 0.5), (2, 0.9), (3, 0.7), (4, 0.9), (5, float("nan"))):
        run.epoch({"epoch": epoch, "step": 10 * epoch, "val/acc": acc})
    assert kept() == (4, 0.9), "of equals the later one, as the checkpoints have it"
    csv_of(tmp_path, (1, 0.5), (2, 0.6))
    run.rewind(2, 20, 1)  # what came after epoch 2 is void
    assert kept() == (2, 0.6)
    run.epoch({"epoch": 3, "step": 30, "val/acc": 0.4})
    run.epoch({"epoch": 4, "step": 40, "val/acc": None})  # without a validation
    assert kept() == (2, 0.6)
    run.session.end(1)  # as good as killed: no last word
    told = server.runs["mine"]
    assert (told.summary["best/val/acc"], told.summary["best/epoch"]) == (0.9, 4), "told when it was"

    csv_of(tmp_path, (1, 0.5), (2, 0.6))
    lowest = tracker(tmp_path, "mine", resumes=True, maximize=False)
    lowest.rewind(2, 20, 1)
    assert lowest.best["val/acc"] == 0.5
    times = {"training": 3.5, "test": 0.25}
    lowest.finish(summary(0, time=times, parameters=42, epochs=2, steps=20, samples_per_second=100.0))
    wandb.teardown()
    wanted = {"best/val/acc": 0.75, "best/epoch": 1, "test/acc": 0.7, "time/training": 3.5, "time/test": 0.25}
    wanted |= {"parameters": 42, "steps": 20, "status": "finished"}
    assert {key: server.runs["mine"].summary[key] for key in wanted} == wanted


def test_tensorboard_has_the_pictures_and_a_table_that_nothing_breaks(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = png(tmp_path / "plots" / "curves.png")
    (tmp_path / "plots" / "broken.png").write_bytes(b"\x89PNG")
    board = TensorBoard(tmp_path / "board")
    board.epoch({"epoch": 1, "step": 20, "val/acc": 0.5})
    board.predictions(Predictions(["a"], [0], [0], [Mistake(3, "one\n<b> two", "a|b", "c", 0.9, 2.0)]))
    board.plots([picture, tmp_path / "plots" / "broken.png", tmp_path / "plots" / "gone.png"])
    board.finish({"test": {"test/acc": 0.97}, "steps": 20})
    tell_tensorboard(tmp_path / "board", {"eval/test-best/acc": 0.5}, [picture], 20)
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert events.Tags()["images"] == ["plots/curves"]
    image = events.Images("plots/curves")[0]
    assert image.step == 20
    shown = Image.open(io.BytesIO(image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(Image.open(picture)))
    (text,) = events.Tensors("test/mistakes/text_summary")
    assert text.step == 20
    written = text.tensor_proto.string_val[0].decode()
    assert written.splitlines()[-1] == r"| 3 | a\|b | c | 0.900 | 2.000 | one &lt;b> two |"
    assert [(e.step, e.value) for e in events.Scalars("eval/test-best/acc")] == [(20, 0.5)]
