"""`dlrun bench`: a trained run and what became of it, and what is said where something is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine

from dlrun import load_run
from dlrun.commands import bench
from dlrun.comparison.figures import Comparison
from dlrun.comparison.subjects import open_file
from dlrun.errors import UserError
from dlrun.exporting import torchscript

QUICK = ["calls=5", "seconds=0.01", "threads=1"]
BARE = [*QUICK, "memory=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CNN on digits, trained for an epoch; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        patch.setattr("sys.argv", ["dlrun", *TRAIN, "hydra.run.dir=run"])
        from dlrun.cli import main

        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return Path("run").absolute()


TRAIN = ["model=cnn", "model.channels=[8,8]", "model.hidden_size=16", "trainer.max_epochs=1", "tracking=none"]


@pytest.fixture
def run(trained: Path, dlrun: CommandLine) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, dlrun.folder / "run"))


def report(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "bench/bench.json").read_text()))


def test_a_run_by_itself(run: Path, dlrun: CommandLine) -> None:
    done = dlrun("bench", f"run={run}", *QUICK, "batch_sizes=1,3")
    assert done.code == 0, done.err
    found = report(run)
    [row] = found["rows"]
    summary = json.loads((run / "summary.json").read_text())
    assert row["accuracy"] == pytest.approx(summary["test"]["test/acc"])
    assert row["loss"] == pytest.approx(summary["test"]["test/loss"], rel=1e-5)
    assert row["accuracy_change"] == 0
    assert row["parameters"] == summary["parameters"]
    weights = load_run(run).network.state_dict().values()
    assert 0 < row["bytes"] - sum(t.nbytes for t in weights) < 20_000, "the weights, and what a file has around them"
    assert row["memory_bytes"] > sum(t.nbytes for t in weights)
    assert row["latency"].keys() == {"1", "3"}
    for size, figures in row["latency"].items():
        assert figures["calls"] >= 5
        assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
        assert figures["samples_per_second"] == pytest.approx(int(size) * 1000 / figures["mean_ms"])
        assert figures["speedup"] == 1
    assert (found["threads"], found["device"], found["batch_sizes"]) == (1, "cpu", [1, 3])
    assert (found["inputs"], found["run_id"]) == ("test split", summary["run_id"])
    assert found["machine"]["logical_cores"]
    assert (run / "bench/bench.png").read_bytes().startswith(b"\x89PNG")
    assert "| pytorch | PyTorch |" in (run / "bench/bench.md").read_text()
    assert max(len(line) for line in done.out.split("\n\n")[0].splitlines()) <= 110
    assert str(run / "bench") in done.out


def test_flops_and_nonzero_parameters_are_the_networks(run: Path, dlrun: CommandLine) -> None:
    state = torch.load(run / "checkpoints/best.pt", weights_only=True)
    name = next(name for name, tensor in state["model"].items() if tensor.ndim == 4)
    zeros = state["model"][name].numel()
    assert state["ema"] is None
    state["model"][name].zero_()
    _save(state, run)
    assert dlrun("bench", f"run={run}", *BARE, "batch_sizes=2").code == 0
    [row] = report(run)["rows"]
    assert row["parameters"] - row["nonzero_parameters"] == pytest.approx(zeros, abs=40), (
        "and biases that began at zero"
    )
    info = json.loads(dlrun("info", "data=digits", *TRAIN[:3], "format=json").out)
    assert row["flops_per_sample"] == info["flops_per_sample"]


def _save(state: dict[str, Any], run: Path) -> None:
    from dlrun.checkpoint import save

    save(run / "checkpoints/best.pt", {name: value for name, value in state.items() if name != "format"})


def test_without_the_data_inputs_are_random_and_there_is_no_accuracy(
    run: Path, dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = dlrun.folder / "pictures"
    _write_pictures(pictures)
    words = ["data=image_folder", f"data.root={pictures}", "data.image_size=[8,8]"]
    done = dlrun(*TRAIN, *words, "augment=none", "hydra.run.dir=mine")
    assert done.code == 0, done.err
    mine = dlrun.folder / "mine"
    assert dlrun("bench", f"run={mine}", *BARE, "batch_sizes=1").code == 0
    assert report(mine)["rows"][0]["accuracy"] is not None
    shutil.rmtree(pictures)
    done = dlrun("bench", f"run={mine}", *BARE, "batch_sizes=1")
    assert done.code == 0, done.err
    found = report(mine)
    assert found["rows"][0]["accuracy"] is None
    assert found["rows"][0]["latency"]["1"]["p50_ms"] > 0
    assert found["inputs"] == "random"
    assert "random inputs and no accuracy" in done.out


def _write_pictures(folder: Path) -> None:
    from PIL import Image

    for name, value in (("dark", 20), ("light", 200)):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8), (value + number,) * 3).save(folder / "train" / name / f"{number}.png")


def test_damaged_and_unfinished_artifacts_are_listed_and_the_rest_is_measured(run: Path, dlrun: CommandLine) -> None:
    (run / "export").mkdir()
    (run / "export/onnx.onnx").write_bytes(b"not a graph")
    record = {"format": "onnx", "file": "onnx.onnx", "bytes": 11, "parity": {"passed": True}}
    (run / "export/onnx.json").write_text(json.dumps(record))
    (run / "export/pt2.json").write_text("{")
    (run / "compress/qat-abcdefgh").mkdir(parents=True)
    done = dlrun("bench", f"run={run}", *BARE, "batch_sizes=1")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in report(run)["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "pytorch": "measured",
        "onnx": "left out",
        "pt2": "left out",
        "qat-abcdefgh": "left out",
    }
    assert "onnx: left out: " in done.out


def test_a_report_for_another_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    found = bench.report(run, bench.Options(calls=5, seconds=0.01, batch_sizes=[2], memory=False, threads=2))
    assert [row["name"] for row in found["rows"]] == ["pytorch"]
    assert torch.get_num_threads() == threads, "as it was before"
    assert "pytorch" in capsys.readouterr().out


def test_a_report_that_is_interrupted_leaves_the_earlier_one(
    run: Path, dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dlrun("bench", f"run={run}", *BARE, "batch_sizes=1").code == 0
    before = {path: path.read_bytes() for path in (run / "bench").iterdir()}
    assert len(before) == 3

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlrun.viz.latency.figure", interrupted)
    assert dlrun("bench", f"run={run}", *BARE, "batch_sizes=1").code == 130
    assert {path: path.read_bytes() for path in (run / "bench").iterdir()} == before


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch_sizes=0", "batch_sizes: expected a list, each a whole number >= 1"),
        ("batch_sizes=", "batch_sizes: expected a list"),
        ("batch_sizes=1,many", "batch_sizes: expected a list, each a whole number >= 1"),
        ("calls=0", "calls: expected a whole number >= 1, got 0"),
        ("seconds=0", "seconds: expected a number > 0, got 0"),
        ("threads=none", "threads: expected a whole number >= 1 or null, got 'none'"),
        ("memory=maybe", "memory: expected true or false, got 'maybe'"),
        ("device=gpu", "device: expected one of 'cpu', 'cuda', got 'gpu'"),
        ("artifact=pytorhc", "artifact: there is no 'pytorhc'; did you mean 'pytorch'?"),
        ("calsl=5", "calsl: unknown option of bench; did you mean 'calls'?"),
        ("trainer.num_threads=2", "trainer.num_threads: unknown option of bench (choose from accuracy"),
        ("checkpoint=first", "checkpoint: expected one of 'best', 'last', got 'first'"),
    ],
)
def test_bad_words_are_one_line(trained: Path, dlrun: CommandLine, word: str, message: str) -> None:
    done = dlrun("bench", f"run={trained}", word)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (trained / "bench").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_isnt_there(trained: Path, dlrun: CommandLine) -> None:
    done = dlrun("bench", f"run={trained}", "device=cuda")
    assert done.code == 2
    assert "device: 'cuda' isn't available on this machine; available: cpu" in done.err


def test_exports_and_compressed_runs_are_measured_beside_the_run(run: Path, dlrun: CommandLine) -> None:
    """Of the real commands; what was exported keeps its accuracy, what was pruned has fewer parameters and FLOPs."""
    compress = ["method=prune_structured", "amount=0.5", "finetune_epochs=0", "bench=false"]
    assert dlrun("compress", f"run={run}", *compress).code == 0
    [pruned] = (run / "compress").iterdir()
    for folder in (run, pruned):
        assert dlrun("export", f"run={folder}", "format=onnx").code == 0
    for words in (["format=onnx", "preprocess=true"], ["format=torchscript"]):
        assert dlrun("export", f"run={run}", *words).code == 0
    done = dlrun("bench", f"run={run}", *QUICK, "batch_sizes=1,7")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in report(run)["rows"]}
    smaller = "prune_structured-0.5"
    assert list(rows) == ["pytorch", "onnx", "onnx-uint8", "torchscript", smaller, f"{smaller}/onnx"]
    assert {row["status"] for row in rows.values()} == {"measured"}
    for name in ("onnx", "onnx-uint8", "torchscript"):
        assert rows[name]["accuracy"] == rows["pytorch"]["accuracy"]
        assert rows[name]["loss"] == pytest.approx(rows["pytorch"]["loss"], rel=1e-4)
    assert rows[smaller]["accuracy"] == rows[f"{smaller}/onnx"]["accuracy"]
    for figure in ("parameters", "flops_per_sample", "bytes"):
        assert rows[smaller][figure] < 0.8 * rows["pytorch"][figure]
    assert rows["onnx"]["bytes"] == (run / "export/onnx.onnx").stat().st_size
    assert all(row["memory_bytes"] > 0 and row["latency"].keys() == {"1", "7"} for row in rows.values())


def test_an_export_of_an_earlier_epoch_is_told(run: Path, dlrun: CommandLine) -> None:
    assert dlrun("export", f"run={run}", "format=torchscript").code == 0
    assert dlrun("bench", f"run={run}", *BARE, "batch_sizes=1", "artifact=torchscript").code == 0
    assert not any("by now" in note for note in report(run)["notes"])
    summary = json.loads((run / "summary.json").read_text())
    summary["best"]["epoch"] = 7  # as if it had been trained on
    (run / "summary.json").write_text(json.dumps(summary))
    done = dlrun("bench", f"run={run}", *BARE, "batch_sizes=1", "artifact=torchscript")
    assert "torchscript was exported of epoch 1, and its run's best is of epoch 7 by now" in done.out


def test_an_accuracy_of_fewer_views_than_the_runs_own_is_told(run: Path, dlrun: CommandLine) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("tta: none", "tta: flip"))
    done = dlrun("bench", f"run={run}", *BARE, "batch_sizes=1")
    assert "accuracy is of one view of each picture, as is the time; the run's test took more" in done.out


def test_a_file_that_holds_code_is_run_only_if_it_is_named(
    run: Path, dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dlrun("export", f"run={run}", "format=torchscript").code == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(dlrun.folder / "another user's"))
    words = ["bench", f"run={run}", *BARE, "batch_sizes=1"]
    assert "torchscript: left out: not run: torchscript.pt can hold code" in dlrun(*words).out
    assert dlrun(*words, "artifact=torchscript").code == 0
    assert [row["status"] for row in report(run)["rows"]] == ["measured", "measured"]


def test_a_folder_that_calls_its_code_all_isnt_taken_at_its_word(run: Path, dlrun: CommandLine) -> None:
    """`artifact=all` is the default, and no name that somebody said."""
    loaded = load_run(run)
    assert Comparison(loaded, 1, (), ["all"]).asked == []
    assert Comparison(loaded, 1, (), ["all", "onnx"]).asked == ["onnx"]


def test_what_lies_in_the_current_folder_is_not_imported(
    run: Path, dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks at a stranger's run from inside of it: memory is measured in a process of its own."""
    for module in ("json", "tempfile", "torch"):
        (run / f"{module}.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(run)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    assert dlrun("bench", "run=.", *QUICK, "batch_sizes=1").code == 0
    assert not (run / "imported").exists()
    assert report(run)["rows"][0]["memory_bytes"] > 0


def test_a_file_that_was_made_for_a_gpu_is_left_out_on_a_cpu(run: Path, tmp_path: Path) -> None:
    spec = load_run(run).spec
    net = load_run(run).network
    torchscript.write(net, spec, tmp_path / "made.pt", {"device": "cuda"})
    with pytest.raises(UserError, match="runs on cuda, not on cpu"):
        open_file(tmp_path / "made.pt", torch.device("cpu"), 1, named=True)
    torchscript.write(net, spec, tmp_path / "made.pt", {"device": "cpu"})
    assert open_file(tmp_path / "made.pt", torch.device("cpu"), 1, named=True).metadata == {"device": "cpu"}


def test_weights_in_bfloat16_are_measured_as_they_are(dlrun: CommandLine) -> None:
    words = ["model=mlp", "data=digits", "precision=bf16_weights", "trainer.max_epochs=1", "tracking=none"]
    assert dlrun(*words, "augment=none", "hydra.run.dir=run").code == 0
    assert dlrun("bench", "run=run", *BARE, "batch_sizes=1").code == 0
    [row] = report(dlrun.folder / "run")["rows"]
    assert row["numbers"] == "bf16"
    assert 2 * row["parameters"] < row["bytes"] < 3 * row["parameters"]
    summary = json.loads((dlrun.folder / "run/summary.json").read_text())
    assert row["accuracy"] == pytest.approx(summary["test"]["test/acc"])
    assert row["loss"] == pytest.approx(summary["test"]["test/loss"], rel=1e-6)


def test_bad_folders_are_one_line(run: Path, dlrun: CommandLine) -> None:
    (dlrun.folder / "empty").mkdir()
    for name, message in (("nowhere", "no folder 'nowhere'"), ("empty", "no summary.json")):
        done = dlrun("bench", f"run={name}")
        assert done.code == 2
        assert message in done.err
    assert "say which run" in dlrun("bench").err
    (run / "checkpoints/best.pt").write_bytes((run / "checkpoints/best.pt").read_bytes()[:1000])
    done = dlrun("bench", f"run={run}")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    (run / "checkpoints/best.pt").unlink()
    done = dlrun("bench", f"run={run}")
    assert done.code == 2
    assert "checkpoint=last is there" in done.err
    assert not (run / "bench").exists()


def test_help_says_every_option(dlrun: CommandLine) -> None:
    shown = dlrun("bench", "--help").out
    for option in bench.Options.__dataclass_fields__:
        assert f"{option}=" in shown
