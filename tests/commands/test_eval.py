"""`dlrun eval`: the training's own numbers, scikit-learn's for what is beside them, and other data."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from command_line import CommandLine
from PIL import Image
from sklearn import metrics as sk

import dlrun as package
from dlrun.tracking.wandb import session
from dlrun.tracking.wandb.parts import numbers, parts

QUICK = ["tracking=none", "augment=none", "hydra.run.dir=run", "device=cpu"]
SMALL = ["model=mlp", "model.hidden_sizes=[16]"]
CNN = ["model=cnn", "model.channels=[4,8]", "model.hidden_size=16"]
NAMES = ["ant", "bee", "cow"]


def report(stem: str = "test-best") -> dict[str, Any]:
    return dict(json.loads(Path(f"run/eval/{stem}.json").read_text()))


def told() -> dict[str, float]:
    """What the training said of its own test."""
    return dict(json.loads(Path("run/summary.json").read_text())["test"])


def rows(file: str) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def pictures(root: str, **counts: int) -> None:
    """Little pictures, three classes apart by colour: pictures("pets", train=8) has eight of each in pets/train."""
    random = np.random.default_rng(0)
    for split, count in counts.items():
        for shade, name in enumerate(NAMES):
            for i in range(count):
                pixels = random.integers(0, 60, (8, 8, 3), dtype=np.uint8)
                pixels[..., shade] += 150
                file = Path(root, split, name, f"{i}.png")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)


@pytest.mark.parametrize(
    "words",
    [
        [*CNN, "data=digits", "trainer.tta=flip", "trainer.ema_decay=0.9"],
        [*SMALL, "data=breast_cancer", "precision=bf16", "task.class_weights=balanced"],
        ["model=lstm", "model.hidden_size=8", "data=pydocs", "data.max_length=12", "data.limit=300"],
        [*SMALL, "data=fake", "data.num_classes=40", "data.size=600", "trainer.limit_test_batches=1"],
    ],
    ids=["digits", "breast_cancer", "pydocs", "fake"],
)
def test_numbers_are_the_trainings_own_and_scikit_learns(words: list[str], dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, "trainer.max_epochs=2", *words).code == 0
    done = dlrun("eval", "run=run", "predictions=true", "probabilities=true")
    assert done.code == 0, done.err
    found, lines = report(), rows("run/eval/test-best.csv")
    assert {name: found["metrics"][name] for name in told()} == told()
    assert found["same_data"] is True
    names = found["class_names"]
    assert [int(line["index"]) for line in lines] == list(range(found["samples"]))
    truths, guesses = ([names.index(line[column]) for line in lines] for column in ("truth", "prediction"))
    assert found["confusion_matrix"] == sk.confusion_matrix(truths, guesses, labels=range(len(names))).tolist()
    expected = sk.precision_recall_fscore_support(truths, guesses, labels=range(len(names)), zero_division=0)
    for column, theirs in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([row[column] for row in found["per_class"]], theirs, rtol=1e-12)
    assert found["metrics"]["test/macro_f1"] == pytest.approx(
        sk.f1_score(truths, guesses, average="macro", zero_division=0)
    )
    probabilities = np.array([[float(line[f"p({name})"]) for name in names] for line in lines])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert ("test/top5" in found["metrics"]) == (len(names) > 5)
    if len(names) > 5:
        theirs = sk.top_k_accuracy_score(truths, probabilities, k=5, labels=range(len(names)))
        assert found["metrics"]["test/top5"] == pytest.approx(theirs)
    losses = [float(line["loss"]) for line in lines]
    assert np.mean(losses) == pytest.approx(told()["test/loss"], rel=1e-5)
    confidences = probabilities[np.arange(len(lines)), guesses]
    right = np.array(truths) == np.array(guesses)
    error = sum(
        abs(right[inside].mean() - confidences[inside].mean()) * inside.mean()
        for i in range(15)
        if (inside := (confidences > i / 15) & (confidences <= (i + 1) / 15)).any()
    )
    assert found["metrics"]["test/ece"] == pytest.approx(error, abs=1e-6)
    worst = sorted((i for i in range(len(lines)) if not right[i]), key=lambda i: -losses[i])[:32]
    assert [mistake["index"] for mistake in found["mistakes"]] == worst
    shown = [line for line in done.out.splitlines() if any(line.startswith(f"{name} ") for name in names)]
    assert len(shown) == min(len(names), 20)


def test_mistakes_look_like_the_samples(dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, *CNN, "data=digits", "trainer.max_epochs=1").code == 0
    assert dlrun("eval", "run=run", "worst=5").code == 0
    assert dlrun("eval", "run=run", "worst=3").code == 0
    split = package.load_run("run").split("test")
    mistakes = report()["mistakes"]
    assert len(mistakes) == 3
    assert len(list(Path("run/eval/test-best-mistakes").iterdir())) == 3, "those of before are gone"
    for mistake in mistakes:
        pixels = np.asarray(Image.open(Path("run/eval", mistake["picture"])))
        assert pixels.shape == (96, 96)
        assert np.array_equal(pixels[::12, ::12], split.show(mistake["index"])[..., 0])


def test_a_mistakes_row_is_in_its_own_units(dlrun: CommandLine) -> None:
    from sklearn.datasets import load_breast_cancer

    assert dlrun(*QUICK, *SMALL, "data=breast_cancer", "trainer.max_epochs=1").code == 0
    assert dlrun("eval", "run=run").code == 0
    table = load_breast_cancer().data
    for mistake in report()["mistakes"]:
        near = np.isclose(table, mistake["row"], rtol=1e-4, atol=1e-4).all(axis=1)
        assert near.sum() == 1


def test_other_splits_and_the_last_checkpoint(dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, *SMALL, "data=breast_cancer", "trainer.max_epochs=2").code == 0
    assert dlrun("eval", "run=run", "split=val").code == 0
    best = json.loads(Path("run/summary.json").read_text())["best"]
    assert report("val-best")["metrics"]["val/acc"] == best["val/acc"]
    assert report("val-best")["metrics"]["val/loss"] == best["val/loss"]
    assert dlrun("eval", "run=run", "split=train", "checkpoint=last").code == 0
    assert report("train-last")["samples"] == 409
    assert report("train-last")["epoch"] == 2


def test_other_texts_are_read_with_the_runs_words_and_classes(dlrun: CommandLine) -> None:
    words = {"a": "good fine nice kind", "b": "bad poor sad grim", "c": "car bus tram train"}
    lines = [
        f"{word} {other},{label}" for label, some in words.items() for word in some.split() for other in some.split()
    ]
    Path("train.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    Path("new.csv").write_text("text,label\nbus neverseen tram,c\nnice good,a\n,c\n")
    Path("strange.csv").write_text("text,label\nbus,d\n")
    made = ["data=text_csv", "data.file=train.csv", "model=mlp", "model.hidden_sizes=[16]", "data.val_fraction=0.2"]
    assert dlrun(*QUICK, *made, "trainer.max_epochs=20").code == 0
    done = dlrun("eval", "run=run", "data.file=new.csv", "predictions=out.csv")
    assert done.code == 0, done.err
    assert "aren't the samples" in done.err
    (file,) = Path("run/eval").glob("test-best-*.json")
    found = json.loads(file.read_text())
    assert (found["same_data"], found["samples"], found["data"]["file"]) == (False, 3, "new.csv")
    assert [line["truth"] for line in rows("out.csv")] == ["c", "a", "c"], "all of the file, in its order"
    run = package.load_run("run", overrides=["data.file=new.csv"])
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(run.spec.tokenizer)
    tokens = run.split("test", whole=True).fetch(torch.arange(3))
    assert tokens[0].tolist() == tokenizer.encode("bus neverseen tram").ids
    assert tokens[1].tolist()[:2] == tokenizer.encode("nice good").ids
    assert "no samples of b" in done.out
    shutil.copy("train.csv", "copy.csv")
    assert dlrun("eval", "run=run", "data.file=copy.csv").code == 0
    assert {name: report()["metrics"][name] for name in told()} == told()
    done = dlrun("eval", "run=run", "data.file=strange.csv")
    assert (done.code, done.err) == (2, "dlrun: data: 'd' is no class of the run (choose from a, b, c)\n")


def test_other_pictures_have_the_runs_classes(dlrun: CommandLine) -> None:
    pictures("pets", train=20)
    made = ["data=image_folder", "data.root=pets", "data.image_size=[8,8]", "data.val_fraction=0.2"]
    assert dlrun(*QUICK, *CNN, *made, "trainer.max_epochs=2").code == 0
    shutil.move("pets", "moved")
    done = dlrun("eval", "run=run")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "pets" in done.err
    assert dlrun("eval", "run=run", "data.root=moved").code == 0
    assert report()["same_data"] is True
    assert {name: report()["metrics"][name] for name in told()} == told()
    pictures("others", test=4)
    shutil.rmtree("others/test/bee")
    done = dlrun("eval", "run=run", "data.root=others", "predictions=others.csv")
    assert done.code == 0, done.err
    assert "no samples of bee" in done.out
    assert [line["file"] for line in rows("others.csv")] == [f"{n}/{i}.png" for n in ("ant", "cow") for i in range(4)]
    assert {line["truth"] for line in rows("others.csv")} == {"ant", "cow"}
    pictures("all", train=2)
    assert dlrun("eval", "run=run", "data.root=all", "predictions=all.csv").code == 0
    assert len(rows("all.csv")) == 6, "nothing is held out of other data"
    Path("others/test/cat").mkdir()
    done = dlrun("eval", "run=run", "data.root=others")
    assert done.code == 2
    assert "the run doesn't know; did you mean" in done.err
    done = dlrun("eval", "run=run", "data.root=others", "split=train")
    assert (done.code, len(done.err.splitlines())) == (2, 1)


def test_a_wrong_word_or_folder_is_one_line(dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, *SMALL, "data=breast_cancer", "trainer.max_epochs=1").code == 0
    Path("empty").mkdir()
    wrong = [
        ["run=empty"],
        ["run=nowhere"],
        ["run=run", "checkpoint=bst"],
        ["run=run", "split=tst"],
        ["run=run", "splt=test"],
        ["run=run", "worst=-1"],
        ["run=run", "worst=many"],
        ["run=run", "predictions=no/where.csv"],
        ["run=run", "predictions=empty"],
        ["run=run", "predictions=out.json"],
        ["run=run", "probabilities=true"],
        ["run=run", "model.dropout=0.5"],
        ["run=run", "data.file=x.csv"],
        [],
    ]
    for words in wrong:
        done = dlrun("eval", *words)
        assert (done.code, len(done.err.splitlines())) == (2, 1), (words, done.err)
        assert not Path("run/eval").exists()
    best = Path("run/checkpoints/best.pt")
    content = best.read_bytes()
    best.write_bytes(content[: len(content) // 2])
    done = dlrun("eval", "run=run")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "damaged" in done.err
    best.unlink()
    done = dlrun("eval", "run=run")
    assert done.code == 2
    assert "checkpoint=last is there" in done.err
    assert dlrun("eval", "run=run", "checkpoint=last").code == 0


def test_what_has_no_files_has_no_other_place(dlrun: CommandLine) -> None:
    from dlrun.commands.eval import FILELESS
    from dlrun.registry import datasets

    read = {"cifar10", "cifar100", "fashion_mnist", "image_folder", "mnist", "text_csv"}
    assert {*FILELESS, *read} == set(datasets.names())
    assert dlrun(*QUICK, "trainer.max_epochs=1", *SMALL, "data=digits").code == 0
    done = dlrun("eval", "run=run", "data.root=others")
    assert (done.code, done.err) == (2, "dlrun: data.root: digits has no files, and so there is no other of it\n")
    assert not Path("run/eval").exists()


def test_predictions_do_not_replace_the_data(dlrun: CommandLine) -> None:
    rows = "".join(f"word {i % 2},{'ab'[i % 2]}\n" for i in range(40))
    Path("in.csv").write_text("text,label\n" + rows)
    words = ["model=mlp", "model.hidden_sizes=[4]", "data=text_csv", "data.file=in.csv", "data.root=."]
    assert dlrun(*QUICK, "trainer.max_epochs=1", *words).code == 0
    done = dlrun("eval", "run=run", "predictions=in.csv")
    assert (done.code, done.err) == (2, "dlrun: predictions: in.csv is the data, and would be replaced\n")
    assert Path("in.csv").read_text() == "text,label\n" + rows


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(session, "PATIENCE", 10.0)
    yield
    wandb.teardown()


def test_the_runs_wandb_run_is_told(dlrun: CommandLine, offline: None) -> None:
    words = [*SMALL, "data=breast_cancer", "trainer.max_epochs=1", "augment=none", "hydra.run.dir=run", "device=cpu"]
    assert dlrun(*words).code == 0
    run_id = dlrun.summary("run")["run_id"]
    assert dlrun("eval", "run=run", "tracking=none").code == 0
    assert len(parts(Path("run"), run_id)) == 1
    done = dlrun("eval", "run=run")
    assert done.code == 0
    assert "to upload this run: wandb sync" in done.err
    wandb.teardown()
    first, second = parts(Path("run"), run_id)
    ((number, row),) = second.rows().items()
    assert number > max(first.rows())
    assert numbers(row)["eval/test/acc"] == told()["test/acc"]
    assert any("mistakes" in (item.key or ".".join(item.nested_key)) for item in row.item)


def test_wandb_is_left_alone_while_the_run_is_trained(dlrun: CommandLine, offline: None, tmp_path: Path) -> None:
    import subprocess
    import sys

    words = [*SMALL, "data=breast_cancer", "trainer.max_epochs=1", "augment=none", "hydra.run.dir=run", "device=cpu"]
    assert dlrun(*words).code == 0
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from dlrun.locks import hold;"
         "hold(Path('run/.lock')); print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = dlrun("eval", "run=run")
    finally:
        holder.communicate()
    assert done.code == 0
    assert "W&B isn't told: " in done.err
    assert len(parts(Path("run"), dlrun.summary("run")["run_id"])) == 1


def test_it_leaves_pictures_and_what_is_on_them(dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dlrun(*QUICK, *SMALL, "data=digits", "data.limit=100", "trainer.max_epochs=1").code == 0
    result = dlrun("eval", "run=run", "plots=true", "split=val", "worst=0")
    assert result.code == 0, result.err
    for name in ("confusion", "calibration", "mistakes"):
        assert f"written run/eval/val-best-{name}.png" in result.out
    whole, cells = report("val-best"), report("val-best-confusion")["cells"]
    assert {(truth, guess): n for truth, guess, n in cells} == {
        (truth, guess): n for truth, row in enumerate(whole["confusion_matrix"]) for guess, n in enumerate(row) if n > 0
    }
    assert report("val-best-calibration")["ece"] == pytest.approx(whole["metrics"]["val/ece"])
    assert len(report("val-best-mistakes")["mistakes"]) > 0

    def fails(*arguments: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("dlrun.commands.eval.draw_found", fails)
    assert dlrun("eval", "run=run", "plots=true").code == 0
