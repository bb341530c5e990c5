"""Every model in every format answers as the net does in double precision, whatever the batch's size and length."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nets import SPECS, batches, net, pairs
from torch import nn

from dlrun.exporting import metadata, onnx
from dlrun.exporting.dynamism import example
from dlrun.exporting.formats import FORMATS
from dlrun.exporting.graph import Graph
from dlrun.exporting.runtime import open_artifact

TEXTS = {"run_id": "abc123", "class_names": '["ä", "b\\"c"]'}
NATIVE = [name for name in FORMATS if name != "aoti"]  # which compiles for 10 to 30 s


def error(model: nn.Module, path: Path, modality: str) -> float:
    """The file's largest distance to the net in float64, as a share of the largest logit."""
    file, exact = open_artifact(path, threads=1, trusted=True), copy.deepcopy(model).double()
    worst = largest = 0.0
    with torch.no_grad():
        for inputs in batches(modality):
            wanted = exact(inputs if modality == "text" else inputs.double())
            got = file(inputs)
            assert got.dtype == torch.float32
            assert got.shape == wanted.shape
            assert got.isfinite().all()  # else a NaN would be no error
            worst = max(worst, (got - wanted).abs().max().item())
            largest = max(largest, wanted.abs().max().item())
    return worst / largest


@pytest.mark.parametrize("form", NATIVE)
def test_every_model_is_exported(form: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    walked = pairs()
    assert len(walked) == 17  # nine families, on the modalities that they take
    for name, modality in walked:
        model, path = net(name, modality), tmp_path / f"{name}-{modality}{FORMATS[form].suffix}"
        FORMATS[form].write(model, SPECS[modality], path, TEXTS)
        assert error(model, path, modality) < 2e-5, (name, modality)
        found = open_artifact(path, trusted=True).metadata
        assert found == TEXTS, (name, modality)
    assert len(list(tmp_path.iterdir())) == 17


@pytest.mark.parametrize("form", NATIVE)
@pytest.mark.parametrize("name", ["cnn", "speednet", "torchvision", "timm"])
def test_pictures_that_shrink_to_a_pixel(name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With channels last, as they are trained: the strides of 1×1 pixels don't say which order they are in."""
    monkeypatch.setitem(SPECS, "image", replace(SPECS["image"], shape=(3, 8, 8)))
    model, path = net(name, "image").to(memory_format=torch.channels_last), tmp_path / f"net{FORMATS[form].suffix}"
    last = not FORMATS[form].arranges
    graph = Graph(model, SPECS["image"], channels_last=last)
    FORMATS[form].write(graph, SPECS["image"], path, TEXTS)
    assert error(model, path, "image") < 2e-5  # of batches of one, too


def test_a_full_disk_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    """In a process of its own: torch's writer of .pt2 calls std::terminate when it is given a file that fails."""
    program = """
import resource, sys
from pathlib import Path
from dlrun.exporting import pt2
from nets import SPECS, net
model = net("mlp", "tabular", hidden_sizes=[512, 512])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    pt2.write(model, SPECS["tabular"], Path(sys.argv[1]), {})
except OSError as error:
    print("told", error.strerror)
"""
    folders = os.pathsep.join(str(folder) for folder in (Path(__file__).parents[2], Path(__file__).parent))
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "net.pt2")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
    assert (found.returncode, found.stdout) == (0, "told File too large\n"), found.stderr
    assert list(tmp_path.iterdir()) == []


def test_one_is_compiled(tmp_path: Path) -> None:
    model, path = net("mlp", "tabular"), tmp_path / "aoti.pt2"
    FORMATS["aoti"].write(model, SPECS["tabular"], path, TEXTS)
    assert error(model, path, "tabular") < 2e-5
    assert TEXTS.items() <= open_artifact(path, trusted=True).metadata.items()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_model_is_compiled(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    walked = pairs()
    assert len(walked) == 17
    for name, modality in walked:
        model, path = net(name, modality), tmp_path / f"{name}-{modality}.pt2"
        FORMATS["aoti"].write(model, SPECS[modality], path, TEXTS)
        assert error(model, path, modality) < 2e-5, (name, modality)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_recurrent_nets_are_compiled_in_half_precision(name: str, tmp_path: Path) -> None:
    model, path = net(name, "text"), tmp_path / "half.pt2"
    FORMATS["aoti"].write(Graph(model, SPECS["text"], half=True), SPECS["text"], path, TEXTS)
    assert error(model, path, "text") < 2e-2


@pytest.mark.parametrize("form", ["onnx", "torchscript"])  # .pt2 is the graph that ONNX is made of
@pytest.mark.parametrize(
    ("name", "modality", "options"),
    [
        ("rnn", "text", {"bidirectional": False, "num_layers": 1}),
        ("rnn", "text", {"attention": True, "num_layers": 1}),
        ("lstm", "text", {"attention": False, "bidirectional": False, "num_layers": 1}),
        ("transformer", "text", {"pooling": "mean", "positions": "sinusoidal", "norm_first": False}),
        ("cnn", "text", {"channels": [4, 4, 4, 4, 4]}),  # from the fourth on there is a word at most
    ],
)
def test_the_other_ways_to_build_them(
    form: str, name: str, modality: str, options: dict[str, object], tmp_path: Path
) -> None:
    model, path = net(name, modality, **options), tmp_path / f"net{FORMATS[form].suffix}"
    FORMATS[form].write(model, SPECS[modality], path, TEXTS)
    assert error(model, path, modality) < 2e-5


def test_onnx_has_the_names_and_the_operators_of_its_field(tmp_path: Path) -> None:
    import onnx as reader

    for name, operator in (("rnn", "RNN"), ("lstm", "LSTM")):
        onnx.write(net(name, "text"), SPECS["text"], tmp_path / "net.onnx", TEXTS)
        proto = reader.load(tmp_path / "net.onnx")
        reader.checker.check_model(proto, full_check=True)
        graph = proto.graph
        shapes = [
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (graph.input[0], graph.output[0])
        ]
        assert (graph.input[0].name, graph.output[0].name, shapes) == (
            "input",
            "logits",
            [["batch", "length"], ["batch", 3]],
        )
        # Two layers, two directions each; a loop in the graph would be many times as slow.
        assert sum(node.op_type == operator for node in graph.node) == 4
        assert not {"Loop", "Scan"} & {node.op_type for node in graph.node}
        assert len(list(tmp_path.iterdir())) == 1  # no weights beside it


@pytest.mark.parametrize("form", NATIVE)
def test_the_model_is_as_it_was(form: str, tmp_path: Path) -> None:
    model, path = net("lstm", "text"), tmp_path / f"net{FORMATS[form].suffix}"
    before, inputs = copy.deepcopy(model.state_dict()), batches("text")[2]
    answer = model(inputs)
    FORMATS[form].write(model, SPECS["text"], path, TEXTS)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(model(inputs), answer)
    model(inputs).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_a_consumer_is_told() -> None:
    told = metadata.describe(SPECS["image"], preprocess=True, half=True, run_id="abc")
    assert json.loads(told["input_shape"]) == ["batch", 32, 32, 3]
    assert (told["input_dtype"], told["preprocess"], told["half"], told["run_id"]) == ("uint8", "true", "true", "abc")
    assert json.loads(told["class_names"]) == ["cat", "dog", "ß"]
    assert json.loads(told["mean"]) == [0.4, 0.5, 0.6]
    assert told["normalisation"] == "none"  # it is in the graph
    assert metadata.describe(SPECS["image"])["normalisation"] == "(x / 255 - mean) / std"
    assert metadata.describe(SPECS["tabular"])["normalisation"] == "(x - mean) / std"
    text = metadata.describe(SPECS["text"])
    assert (text["normalisation"], text["pad_id"]) == ("none", "0")
    assert (text["input_dtype"], text["max_length"], text["tokenizer"]) == ("int64", "12", '{"model": "ä"}')
    assert all(isinstance(value, str) for value in (told | text).values())


def test_the_example_has_no_size_of_the_data() -> None:
    """Or a graph might take the one for the other: a text is never as long as the longest."""
    assert example(SPECS["text"]).shape == (2, 9)
    for longest in (2, 5, 9):
        assert example(replace(SPECS["text"], shape=(longest,))).shape[1] < longest
