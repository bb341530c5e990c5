"""dlrun plot filters|features|attention|gradcam|kernel|landscape, on runs of a few steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine
from PIL import Image
from scipy.signal import convolve2d, correlate2d
from trained import QUICK

from dlrun import load_run
from dlrun.cli import main
from dlrun.commands.picture import leave
from dlrun.data.source import ArraySplit
from dlrun.loading import LoadedRun
from dlrun.viz.pictures import LeftOut

MORE = {
    "words_cnn": ["model=cnn", "model.channels=[8,8]", "model.hidden_size=8"],
    "words_transformer": ["model=transformer", "model.d_model=16", "model.num_layers=2", "model.pooling=cls"],
}


@pytest.fixture(scope="module")
def more_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    data = ["data=pydocs", "data.limit=120", "data.max_length=12", "trainer.max_steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, words in MORE.items():
            patch.setattr("sys.argv", ["dlrun", *words, *data, *QUICK, f"hydra.run.dir={name}"])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0, name
    return folder


def plotted(dlrun: CommandLine, run: Path, kind: str, *words: str) -> dict[str, Any]:
    """What the JSON says, of a picture that was made just now."""
    for file in (run / "plots").glob(f"{kind}.*"):
        file.unlink()
    result = dlrun("plot", kind, f"run={run}", *words)
    assert result.code == 0, result.err
    assert f"{kind}.png" in result.out
    with Image.open(run / "plots" / f"{kind}.png") as image:
        assert min(image.size) > 300
    return dict(json.loads((run / "plots" / f"{kind}.json").read_text()))


def test_of_a_cnn_on_pictures(dlrun: CommandLine, small_runs: Path) -> None:
    run = small_runs / "large_digits"
    loaded = opened_run(run)
    said = plotted(dlrun, run, "filters")
    weight = loaded.network[0][0].weight.detach().numpy()  # type: ignore[index]
    np.testing.assert_allclose(said["weights"], weight, rtol=1e-5)
    said = plotted(dlrun, run, "features", "index=3")
    split = loaded.split("test")
    inputs = loaded.prepare(split.fetch(torch.tensor([3])))
    assert said["sample"] == "test sample 3"
    assert said["truth"] == loaded.class_names[int(split.targets[3])]
    shares = loaded.network(inputs).softmax(dim=1)[0]
    assert said["probability"] == pytest.approx(float(shares.max()))
    layer = said["shown"][0]
    maps = loaded.network[0][:3](inputs)[0].detach().numpy()  # type: ignore[index]
    np.testing.assert_allclose(layer["maps"], maps[layer["shown"]], rtol=1e-4, atol=1e-6)
    said = plotted(dlrun, run, "gradcam", "index=3", "target=7")
    assert (said["target"], np.shape(said["map"]), np.shape(said["over_the_input"])) == ("7", (12, 10), (12, 10))


def opened_run(folder: Path) -> LoadedRun:
    return load_run(folder)


def test_a_picture_of_another_size_is_read_as_predict_does(dlrun: CommandLine, small_runs: Path) -> None:
    run, loaded = small_runs / "photos", opened_run(small_runs / "photos")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)).save("own.png")
    said = plotted(dlrun, run, "features", "input=own.png")
    assert said["notes"] == ["70×90 pixels made 16×20, as dlrun predict does"]
    assert (said["sample"], said["truth"]) == ("own.png", None)
    maps = loaded.network[0][:3](loaded.preprocess("own.png"))[0].detach().numpy()  # type: ignore[index]
    np.testing.assert_allclose(said["shown"][0]["maps"], maps[said["shown"][0]["shown"]], rtol=1e-4, atol=1e-6)
    said = plotted(dlrun, run, "gradcam", f"input={small_runs / 'pets' / 'test'}", "index=5")
    assert said["sample"].endswith("5.png") or said["sample"].endswith("5.jpg")
    assert len(said["notes"]) == 1  # of its size


def test_of_texts(dlrun: CommandLine, more_runs: Path, small_runs: Path) -> None:
    run = more_runs / "words_cnn"
    said = plotted(dlrun, run, "filters", "samples=50", "most=3")
    assert (said["filters"], len(said["ngrams"]), said["texts"], said["width"]) == (8, 3, 50, 3)
    said = plotted(dlrun, run, "features", "text=the socket, and the loop")
    assert said["words"][:3] == ["the", "socket", ","]
    assert [np.shape(layer["maps"])[1] for layer in said["shown"]] == [6, 3]
    Path("texts.csv").write_text("text\nthe socket\nparse the tree now\n")
    said = plotted(dlrun, run, "gradcam", "input=texts.csv", "index=1")
    assert said["words"] == ["parse", "the", "tree", "now"]
    assert len(said["over_the_input"]) == 4
    said = plotted(dlrun, small_runs / "pydocs", "attention", "text=parse the tree")
    assert sum(said["weights"]) == pytest.approx(1, abs=1e-4)
    assert len(said["weights"]) == 3


def test_of_a_transformer(dlrun: CommandLine, more_runs: Path) -> None:
    run, loaded = more_runs / "words_transformer", opened_run(more_runs / "words_transformer")
    said = plotted(dlrun, run, "attention", "text=parse the tree", "layer=2", "head=3")
    assert said["tokens"] == ["[class]", "parse", "the", "tree"]
    assert said["shown"] == {"layers": [2], "heads": [3]}
    expected = loaded.network.attention_weights(loaded.preprocess("parse the tree"))[1][0, 2]  # type: ignore[operator]
    np.testing.assert_allclose(said["attention"][0][0], expected.detach().numpy(), rtol=1e-4)
    wrong = dlrun("plot", "attention", f"run={run}", "head=9")
    assert (wrong.code, wrong.err) == (2, "dlrun: head: expected 1 to 4, got 9\n")
    wrong = dlrun("plot", "gradcam", f"run={run}")
    assert wrong.code == 2
    assert "'transformer' has no convolution" in wrong.err


def test_the_middle_of_the_landscape_is_the_evaluation(dlrun: CommandLine, small_runs: Path) -> None:
    run, loaded = small_runs / "large_digits", opened_run(small_runs / "large_digits")
    said = plotted(dlrun, run, "landscape", "steps=3", "samples=64", "split=val", "span=0.5", "seed=1")
    split = loaded.split("val")
    chosen = torch.from_numpy(np.sort(np.random.default_rng(1).permutation(len(split))[:64]))
    part = ArraySplit(split.fetch(chosen), split.targets[chosen])
    expected = loaded.evaluator().evaluate(loaded.batches("val", part), "val")["val/loss"]
    assert said["loss"][1][1] == said["centre"] == pytest.approx(expected, rel=1e-6)
    logits = loaded.network(loaded.prepare(part.inputs))
    assert said["centre"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, part.targets)), rel=1e-5)
    assert said["notes"] == ["batch norm's running statistics stay those of the trained weights"]
    assert said["places"] == [-0.5, 0, 0.5]
    again = plotted(dlrun, run, "landscape", "steps=3", "samples=64", "split=val", "span=0.5", "seed=1")
    assert again["loss"] == said["loss"]
    slow = dlrun("plot", "landscape", f"run={run}", "max_time=1e-6", "out=none.png")
    assert slow.code == 2
    assert "max_time: that would take" in slow.err
    assert not Path("none.png").exists()


def test_the_kernel(dlrun: CommandLine) -> None:
    result = dlrun("plot", "kernel", "kernel=[[-1,0,1],[-2,0,2],[-1,0,1]]", "matrix=[[0,0,9,9],[0,1,9,9],[0,0,9,9]]")
    assert result.code == 0
    assert Path("plots/kernel.png").exists()
    said = json.loads(Path("plots/kernel.json").read_text())
    for key, computed in (("output", correlate2d), ("convolution", convolve2d)):
        assert said[key] == computed(said["matrix"], said["kernel"], "valid").tolist()
    Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)).save("grey.png")
    assert dlrun("plot", "kernel", "input=grey.png", "padding=same", "out=edges.png").code == 0
    said = json.loads(Path("edges.json").read_text())
    grey = np.asarray(Image.open("grey.png")).astype(float)
    assert said["output"] == correlate2d(grey, said["kernel"], "same").tolist()


REFUSED = [
    (["kernel", "kernel=[[1,2],[1]]"], "kernel: expected rows of as many numbers each, as [[0,1],[1,0]], got"),
    (["kernel", "kernel=[[1,nan]]"], "kernel: expected rows of as many numbers each"),
    (["kernel", "kernel=sobel_z"], "kernel: unknown kernel 'sobel_z'; did you mean 'sobel_y'?"),
    (["kernel", "matrix=[[1]]"], "kernel: 3×3 is larger than the input, which is 1×1"),
    (["kernel", "input=no.png"], "input: can't read no.png (No such file or directory)"),
    (["kernel", "out=a.pdf"], "out: expected a file that ends in .png, got 'a.pdf'"),
    (["features", "run={digits}"], "plot features: the model 'mlp' has no convolution"),
    (["attention", "run={digits}"], "plot attention: the model 'mlp' has no attention that can be seen"),
    (["attention", "run={cancer}"], "plot attention: the columns of a table"),
    (["filters", "run={cancer}"], "plot filters: a table's columns have no places"),
    (["filters", "run={pydocs}"], "plot filters: the model 'lstm' has no convolution over the words"),
    (["attention", "run={pydocs}", "head=1"], "head: 'lstm' has one attention"),
    (["gradcam", "run={large_digits}", "target=ten"], "target: 'ten' is no class of the run"),
    (["gradcam", "run={large_digits}", "text=ten"], "text: is for text data, and the run"),
    (["features", "run={large_digits}", "index=9999"], "index: expected 0 to 359 in the test split, got 9999"),
    (["features", "run={large_digits}", "input=.", "split=val"], "split: is of the run's own data"),
    (["landscape", "run={large_digits}", "steps=4"], "steps: expected an odd number from 3 on"),
    (["features", "run={large_digits}", "indx=1"], "indx: unknown option of plot features; did you mean 'index'?"),
]


@pytest.mark.parametrize(("words", "error"), REFUSED)
def test_what_can_t_be_done_is_one_line(dlrun: CommandLine, small_runs: Path, words: list[str], error: str) -> None:
    result = dlrun("plot", *(word.format_map({run.name: run for run in small_runs.iterdir()}) for word in words))
    assert result.code == 2
    assert result.err.startswith(f"dlrun: {error}")
    assert result.err.count("\n") == 1


def test_every_kind_has_help(dlrun: CommandLine) -> None:
    for kind in ("filters", "features", "attention", "gradcam", "kernel", "landscape"):
        result = dlrun("plot", kind, "--help")
        assert result.out.startswith(f"dlrun plot {kind} ")


def test_weights_that_aren_t_finite_are_said(dlrun: CommandLine, small_runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "broken"
    shutil.copytree(small_runs / "large_digits", run)
    state = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    next(value for value in state["model"].values() if value.ndim > 1).fill_(float("nan"))
    torch.save(state, run / "checkpoints" / "best.pt")
    result = dlrun("plot", "gradcam", f"run={run}")
    assert (result.code, result.err) == (2, "dlrun: test sample 0: the network's answer isn't finite\n")
    result = dlrun("plot", "landscape", f"run={run}", "steps=3")
    assert (result.code, result.err) == (2, "dlrun: plot landscape: the loss of the trained weights isn't finite\n")


def test_a_picture_that_cannot_be_drawn_leaves_its_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def draw() -> Any:
        raise LeftOut("it would say nothing")

    assert leave(tmp_path / "new/a.png", draw, {"number": 1.5}) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "new/a.json").read_text())["number"] == 1.5
    assert caplog.messages == ["no picture: it would say nothing"]


@pytest.mark.slow
def test_of_a_run_of_int8(dlrun: CommandLine, small_runs: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(small_runs / "large_digits", parent)
    assert dlrun("compress", f"run={parent}", "method=quantize_static", "tracking=none").code == 0
    (run,) = (parent / "compress").glob("quantize_static*")
    assert plotted(dlrun, run, "features")["notes"] == ["the weights in floating point that the int8 file was made of"]
    result = dlrun("plot", "landscape", f"run={run}")
    assert result.code == 2
    assert f"draw its parent: run={parent}" in result.err
