"""`dlrun predict`: pictures, texts and rows on the command line, in files and on stdin; and what is typed wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine, Result
from PIL import Image
from sklearn.datasets import load_breast_cancer

import dlrun as package


@pytest.fixture
def work(dlrun: CommandLine, small_runs: Path) -> CommandLine:
    """An empty folder with copies of the runs in it, and none of their data."""
    for name in ("digits", "photos", "pydocs", "reviews", "cancer"):
        shutil.copytree(small_runs / name, dlrun.folder / name)
    return dlrun


def table(path: str = "digits/predict/predictions.csv") -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report(run: str = "digits") -> dict[str, Any]:
    return dict(json.loads(Path(run, "predict/predictions.json").read_text()))


def digit(path: str, value: int = 0) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
    return path


def pipe(work: CommandLine, content: bytes) -> None:
    work.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def refused(result: Result, message: str) -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert message in result.err
    assert "Traceback" not in result.err
    assert not list(Path().glob("*/predict"))
    assert not list(Path().glob("**/*.partial"))


def test_the_test_split_as_files_has_the_accuracy_of_the_summary(work: CommandLine) -> None:
    run = package.load_run("digits")
    split = run.batches("test").split
    Path("pictures").mkdir()
    for index in range(len(split)):
        Image.fromarray(split.show(index)[..., 0]).save(f"pictures/{index:03}_{int(split.targets[index])}.png")
    result = work("predict", "run=digits", "input=pictures", "top_k=2", "batch_size=100")
    assert result.code == 0
    assert "360 predicted: digits/predict/predictions.csv" in result.out
    assert result.err == ""
    rows = table()
    assert list(rows[0]) == [
        *("input", "prediction", "probability"),
        *("class_1", "probability_1", "class_2", "probability_2"),
    ]
    assert [row["input"] for row in rows] == sorted(str(path) for path in Path("pictures").iterdir())
    right = [row["prediction"] == Path(row["input"]).stem[-1] for row in rows]
    assert sum(right) / len(right) == run.folder.read_summary()["test"]["test/acc"]
    with torch.inference_mode():
        logits = run.model(next(iter(run.batches("test").epoch(0)))[0][:1])
    top = logits.softmax(1).topk(2)
    assert [row["probability_1"] for row in rows[:1]] == [f"{top.values[0, 0]:.6g}"]
    written = report()
    assert written["samples"] == sum(written["predicted"].values()) == 360
    assert (written["unreadable"], written["top_k"], written["checkpoint"]) == (0, 2, "best")
    assert written["file"] == "digits/predict/predictions.csv"


def test_what_the_shell_and_stdin_name(work: CommandLine) -> None:
    for name in ("a b.png", "in/c.png", "lr=1.png", "d.png"):
        digit(name)
    assert work("predict", "run=digits", "input=", "a b.png", "lr=1.png", "top_k=1", "input=in").code == 0
    assert [row["input"] for row in table()] == ["a b.png", "lr=1.png", "in/c.png"]
    assert work("predict", "run=digits", "input=*.png", "out=x.jsonl").code == 0
    lines = Path("x.jsonl").read_text().splitlines()
    assert [json.loads(line)["input"] for line in lines] == ["a b.png", "d.png", "lr=1.png"]
    pipe(work, b"d.png\nin\n")
    result = work("predict", "run=digits", "input=-", "out=-")
    assert [row["input"] for row in csv.DictReader(io.StringIO(result.out))] == ["d.png", "in/c.png"]
    assert result.err == ""


def test_stdout_alone_leaves_nothing_in_the_run(work: CommandLine) -> None:
    result = work("predict", "run=digits", f"input={digit('x.png')}", "nowhere.png", "out=-")
    assert result.code == 0
    assert len(result.out.splitlines()) == 2
    assert result.err.splitlines()[0] == "1 couldn't be read:"
    assert not Path("digits/predict").exists()


def test_a_run_that_can_not_be_written_into(work: CommandLine) -> None:
    Path("digits/predict").write_text("in the way")
    named = f"input={digit('x.png')}"
    assert work("predict", "run=digits", named).err == (
        "dlrun: out: can't write digits/predict/predictions.csv (File exists)\n"
    )
    result = work("predict", "run=digits", named, "out=x.csv")
    assert (result.code, len(table("x.csv"))) == (0, 1)
    assert "can't write digits/predict/predictions.json" in result.err


def test_what_can_not_be_read_is_listed(work: CommandLine) -> None:
    digit("in/good.png")
    Path("in/bad.png").write_bytes(b"no picture")
    Path("in/cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    Path("in/a.txt").write_text("a text")  # in a folder it isn't looked at
    strange = os.fsdecode(b"in/\xff.png")
    digit(strange)
    named = ["input=in", "in/a.txt", "nowhere.png", "*.gif"]
    result = work("predict", "run=digits", *named)
    assert result.code == 0
    assert [row["input"] for row in table()] == ["in/good.png", "in/\\xff.png"]
    reasons = {item["input"]: item["reason"] for item in report()["unreadable_inputs"]}
    assert reasons == {
        "in/bad.png": "is no picture that can be decoded",
        "in/cut.jpg": reasons["in/cut.jpg"],  # what Pillow says of it
        "in/a.txt": "holds no picture, and the run was trained on pictures",
        "nowhere.png": "there is no such file or folder",
        "*.gif": "matches nothing",
    }
    assert report()["unreadable"] == 5
    assert "5 couldn't be read:" in result.err
    assert "nowhere.png: there is no such file or folder" in result.err
    assert work("predict", "run=digits", "input=in/good.png", strange).code == 0  # and so is its name in the JSON


def test_a_colour_run_without_its_data(work: CommandLine, small_runs: Path) -> None:
    """Views and all: what the split says, the command says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(small_runs)
        run = package.load_run("photos")
        expected = run.evaluator().predict(run.batches("test"))["probabilities"]
        paths = [str(small_runs / path) for path in run.batches("test").split.paths]  # type: ignore[attr-defined]
    try:  # two threads decode
        named = [f"input={path}" for path in paths]
        assert work("predict", "run=photos", *named, "batch_size=4", "trainer.num_threads=2").code == 0
    finally:
        torch.set_num_threads(1)
    rows = table("photos/predict/predictions.csv")
    assert len(rows) == 18
    for row, shares in zip(rows, expected, strict=True):
        assert row["prediction"] == run.class_names[shares.argmax()]
        assert float(row["probability"]) == pytest.approx(shares.max().item(), abs=1e-5)


def test_texts(work: CommandLine) -> None:
    Path("lines.txt").write_text("a good film, a very good one\n\ncaf\u00e9\n")
    Path("latin.txt").write_bytes(b"caf\xe9\na bad film\n")
    Path("x.csv").write_text('n,review\n1,"good, good"\n2,bad,worse\n')
    words = ["input=lines.txt", "latin.txt", "x.csv", "text=good, and good=good"]
    assert work("predict", "run=reviews", *words).code == 0
    rows = table("reviews/predict/predictions.csv")
    assert [(row["input"], row["text"]) for row in rows] == [
        ("text 1", "good, and good=good"),
        ("lines.txt:1", "a good film, a very good one"),
        ("lines.txt:3", "caf\u00e9"),
        ("latin.txt:2", "a bad film"),
        ("x.csv:2", "good, good"),  # the column that the run was trained on
    ]
    assert [item["input"] for item in report("reviews")["unreadable_inputs"]] == ["latin.txt:1", "x.csv:3"]
    run = package.load_run("reviews")
    assert [row["prediction"] for row in rows] == [p.class_name for p in run.predict([row["text"] for row in rows])]
    Path("y.tsv").write_text("a\tb\nx\tgood film\n")
    assert work("predict", "run=reviews", "input=y.tsv", "text_column=b", "out=y.json").code == 0
    assert json.loads(Path("y.json").read_text())[0]["text"] == "good film"
    pipe(work, b"good\nbad\n")
    lines = work("predict", "run=reviews", "input=-", "out=-").out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["input", "-:1", "-:2"]


def test_rows_of_numbers(work: CommandLine) -> None:
    features, targets = load_breast_cancer(return_X_y=True)
    with Path("x.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["id", *(f"f{i}" for i in range(30)), "diagnosis"],
                *([i, *row, "?"] for i, row in enumerate(features.tolist())),
            ]
        )
    assert work("predict", "run=cancer", "input=x.csv", "drop_columns=id,diagnosis", "batch_size=64").code == 0
    run, rows = package.load_run("cancer"), table("cancer/predict/predictions.csv")
    assert [row["input"] for row in rows] == [f"x.csv:{line}" for line in range(2, 571)]
    right = np.array([run.class_names.index(row["prediction"]) for row in rows]) == targets
    with torch.inference_mode():
        expected = run.model(run.preprocess(features)).argmax(1).numpy() == targets
    assert np.array_equal(right, expected)
    refused_words = ["predict", "run=cancer", "input=x.csv", "out=y.csv"]
    shutil.rmtree("cancer/predict")
    refused(work(*refused_words), "x.csv:2: 32 values, where the run was trained on 30 features; drop_columns=…")
    pipe(work, ",".join(map(str, features[0])).encode())
    assert work("predict", "run=cancer", "input=-", "out=-").out.splitlines()[1].startswith("-:1,")


def test_an_answer_that_is_no_number_is_no_prediction(work: CommandLine) -> None:
    best = Path("cancer/checkpoints/best.pt")
    state = torch.load(best, weights_only=True)
    state["model"] = {name: tensor * float("nan") for name, tensor in state["model"].items()}
    torch.save(state, best)
    Path("x.csv").write_text(",".join(["1"] * 30))
    refused(work("predict", "run=cancer", "input=x.csv"), "x.csv:1: the model's answer isn't finite")


WRONG = {
    "": "input: is missing; say what to predict: input=PATH…",
    "input=": "input: is missing",
    "input=nowhere.png": "input: nowhere.png: there is no such file or folder",
    "input=bad.png": "input: bad.png: is no picture that can be decoded",
    "input=empty.png": "input: empty.png: is no picture that can be decoded",
    "input=a.txt": "input: a.txt: holds no picture, and the run was trained on pictures",
    "input=nothing": "input: nothing: holds nothing to read (looked for .bmp",
    "input=*.webp": "input: *.webp: matches nothing",
    "input=bad.png a.txt empty.png": "input: bad.png: is no picture that can be decoded (and 2 more)",
    "run=reviews input=x.png": "input: x.png: the run was trained on texts; expected a file of them (.csv, .jsonl",
    "run=reviews input=x.csv": "input: x.csv: no column 'review'; did you mean 'reviews'? (choose from label, reviews)",
    "run=reviews input=x.csv text_column=labl": "input: x.csv: no column 'labl'; did you mean 'label'?",
    "run=reviews input=empty.csv": "input: empty.csv: has nothing in it",
    "run=reviews input=latin.txt": "input: latin.txt:1: isn't UTF-8 text",
    "run=reviews input=utf16.txt": "input: utf16.txt:1: isn't UTF-8 text",
    "run=cancer input=a.txt": "input: a.txt: the run was trained on rows of numbers; expected a file of them (.csv",
    "run=cancer input=x.csv": "input: x.csv:2: 2 values, where the run was trained on 30 features",
    "run=cancer input=x.csv drop_columns=lable": "drop_columns: no column 'lable'; did you mean 'label'?",
    "input=x.png text=x": "text: is for text data, and the run was trained on image data",
    "input=x.png text_column=x": "text_column: is for text data",
    "input=x.png drop_columns=x": "drop_columns: is for tabular data",
    "input=x.png top_k=0": "top_k: expected a whole number >= 1, got 0",
    "input=x.png top_k=many": "top_k: expected a whole number",
    "input=x.png batch_size=0": "batch_size: expected a whole number >= 1",
    "input=x.png checkpoint=first": "checkpoint: expected one of 'best', 'last', got 'first'",
    "input=x.png out=x.xls": "out: expected a file that ends in .csv, .jsonl, .json, or -, got 'x.xls'",
    "input=x.png out=no/x.csv": "out: there is no folder no",
    "input=x.png out=folder.csv": "out: folder.csv is a folder; name a file in it",
    "run=cancer input=x.csv out=x.csv": "out: x.csv is the input, and would be replaced",
    "inptu=x.png": "inptu: unknown option of predict; did you mean 'input'?",
    "input=x.png -m": "predict: can't read '-m'; expected KEY=VALUE",
    "x.png": "predict: can't read 'x.png'; expected KEY=VALUE",
    "input=x.png model.dropout=0.5": "model.dropout: unknown option of predict",
    "input=x.png run=nowhere": "run: no folder 'nowhere'",
    "input=x.png run=~no-such-user": "run: no folder '~no-such-user'",
    "input=x.png out=~no-such-user/x.csv": "out: there is no folder ~no-such-user",
    f"input=x.png run={'x' * 300}": "run: no folder 'xxx",
}


def test_what_is_wrong_is_one_line_and_leaves_nothing(work: CommandLine) -> None:
    digit("x.png")
    Path("bad.png").write_text("no picture")
    Path("empty.png").touch()
    Path("empty.csv").touch()
    Path("nothing").mkdir()
    Path("folder.csv").mkdir()
    Path("a.txt").write_text("a text\n")
    Path("x.csv").write_text("reviews,label\ngood,1\n")
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("utf16.txt").write_text("a film", encoding="utf-16")
    before = sorted(Path().rglob("*"))
    for words, message in WRONG.items():
        given = words.split(" ") if words else []
        run = [] if "run=" in words else ["run=digits"]
        refused(work("predict", *run, *given), message)
        assert sorted(Path().rglob("*")) == before, words
    assert len(WRONG) == 37
    refused(work("predict", "input=x.png"), "predict: say which run")


def test_help_is_read_without_a_run(dlrun: CommandLine) -> None:
    result = dlrun("predict", "--help")
    assert result.code == 0
    assert "drop_columns=" in result.out
