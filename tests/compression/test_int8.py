"""int8 files against integer arithmetic written out in NumPy, against ONNX Runtime's floats, and against training."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from quantizable import PAIRS, SPECS, batch, net
from torch import nn

from dlrun.compressing import METHODS
from dlrun.compression import int8
from dlrun.compression.fake_quantization import learned, observe, prepare
from dlrun.errors import UserError
from dlrun.exporting.onnx import write
from dlrun.exporting.runtime import open_artifact
from dlrun.registry import models
from dlrun.spec import DataSpec

CALIBRATION = range(4)  # seeds of batches


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def exported(model: nn.Module, spec: DataSpec, folder: Path) -> Path:
    write(model.eval(), spec, folder / "float.onnx", {"class_names": "[]", "run_id": "abc"})
    return folder / "float.onnx"


def samples(spec: DataSpec) -> list[torch.Tensor]:
    return [batch(spec, 32, seed) for seed in CALIBRATION]


def quantized(x: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float, int]:
    """As uint8, asymmetrically, in float64: numbers, scale, zero point."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64), scale, zero


@pytest.mark.parametrize("reduce_range", [True, False])
def test_a_linear_layer_is_integer_arithmetic(tmp_path: Path, reduce_range: bool) -> None:
    spec = DataSpec("tabular", (20,), ("a", "b", "c", "d"))
    torch.manual_seed(1)
    layer = nn.Linear(20, 4)
    source = exported(nn.Sequential(layer), spec, tmp_path)
    seen = torch.cat(samples(spec))
    int8.static(source, tmp_path / "int8.onnx", samples(spec), reduce_range=reduce_range)
    inputs = batch(spec, 64, seed=9)
    result = open_artifact(tmp_path / "int8.onnx")(inputs).double().numpy()

    x, scale, zero = quantized(inputs.double().numpy(), seen.min().item(), seen.max().item())
    weight = layer.weight.detach().double().numpy()
    steps = 64 if reduce_range else 127
    scales = np.abs(weight).max(axis=1, keepdims=True) / steps
    integers = np.rint(weight / scales).astype(np.int64)
    bias = np.rint(layer.bias.detach().double().numpy() / (scale * scales[:, 0])).astype(np.int64)
    sums = (x - zero) @ integers.T + bias
    assert np.abs(sums).max() < 2**31
    assert np.allclose(result, sums * scale * scales[:, 0], atol=1e-5)
    assert np.abs(result - layer(inputs).detach().numpy()).max() > 1e-3  # and it isn't the float layer


def test_a_convolution_with_relu_and_pooling_is_integer_arithmetic(tmp_path: Path) -> None:
    """uint8 in, uint8 out, the ReLU a part of the rounding, the maximum one of integers."""
    spec = DataSpec("image", (2, 6, 6), ("a", "b", "c"))
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten())
    source = exported(model, spec, tmp_path)
    seen = torch.cat(samples(spec))
    int8.static(source, tmp_path / "int8.onnx", samples(spec))
    inputs = batch(spec, 16, seed=9)
    result = open_artifact(tmp_path / "int8.onnx")(inputs).double().numpy()

    x, scale, zero = quantized(inputs.double().numpy(), seen.min().item(), seen.max().item())
    weight = model[0].weight.detach().double().numpy()
    scales = np.abs(weight).max(axis=(1, 2, 3)) / 64
    integers = np.rint(weight / scales[:, None, None, None])
    bias = np.rint(model[0].bias.detach().double().numpy() / (scale * scales))
    sums = torch.conv2d(torch.tensor(x - zero).double(), torch.tensor(integers), torch.tensor(bias)).numpy()
    with torch.no_grad():
        high = model[:2](seen).max().item()
    out, out_scale, out_zero = quantized(sums * (scale * scales)[:, None, None], 0.0, high)
    assert out_zero == 0
    expected = out.max(axis=(2, 3)) * out_scale
    steps = np.abs(result - expected) / out_scale
    assert steps.max() < 1.01  # a tie may fall to the other side
    assert (steps > 0.01).mean() < 0.05


def relative(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).norm() / two.norm())


# What each method makes int8 of each family, and what it can't: kinds of nodes.
LEFT = {"quantize_static": {"LSTM", "RNN"}, "quantize_dynamic": {"Conv", "RNN"}, "qat": {"LSTM", "RNN", "Conv"}}


def test_every_model_with_every_method(tmp_path: Path) -> None:
    """Near the float file, at sizes it was not made with; the net trained for int8 is nearer to its file than that."""
    walked = refused = 0
    for name, modality in PAIRS:
        spec = SPECS[modality]
        model = net(name, spec)
        source = exported(model, spec, tmp_path)
        other = batch(spec, 50, seed=77)[:, : 9 if modality == "text" else None]
        floats = open_artifact(source)(other)
        assert relative(floats, model(other).detach()) < 1e-4
        prepared = prepare(copy.deepcopy(model), spec)
        observe(prepared, True)
        with torch.no_grad():
            for inputs in samples(spec):
                prepared(inputs)
        observe(prepared, False)
        for method in LEFT:
            file = tmp_path / f"{method}.onnx"
            if method == "quantize_static":
                made = int8.static(source, file, samples(spec))
            elif method == "qat":
                made = int8.static(source, file, samples(spec)[:1], learned=learned(prepared))
            elif name == "torchvision":  # SqueezeNet ends in a convolution
                with pytest.raises(UserError, match="all in Conv; take quantize_static"):
                    int8.dynamic(source, file)
                refused += 1
                continue
            else:
                made = int8.dynamic(source, file)
            assert made.nodes
            assert made.left.keys() <= LEFT[method], (name, modality, method, made)
            assert made.bytes == file.stat().st_size
            runner = open_artifact(file)
            assert runner.metadata["run_id"] == "abc"
            result = runner(other)
            error = relative(result, floats)
            assert 0 < error < 0.15, (name, modality, method, error)
            assert torch.allclose(runner(other[:1]), result[:1], atol=1e-4) or method == "quantize_dynamic"
            if method == "qat":
                with torch.no_grad():
                    fake = prepared(other)
                assert relative(result, fake) < 0.5 * relative(floats, fake), (name, modality)
            walked += 1
    assert (walked, refused) == (17 * 3 - 1, 1)
    assert {name for name, _ in PAIRS} == set(models.names())
    assert {*LEFT, "prune_structured", "prune_unstructured"} == set(METHODS)  # the other two: test_structured.py


def test_residuals_and_logits_stay_floats(tmp_path: Path) -> None:
    spec = SPECS["image"]
    int8.static(exported(net("transformer", spec), spec, tmp_path), tmp_path / "int8.onnx", samples(spec))
    graph = onnx.load(tmp_path / "int8.onnx").graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    readers = {node.op_type for node in graph.node if dequantized & set(node.input)}
    assert readers == {"MatMul", "Gemm"}
    assert next(node for node in graph.node if "logits" in node.output).op_type == "Gemm"


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_an_outlier_widens_the_range_unless_calibration_cuts_it_off(tmp_path: Path, calibration: Any) -> None:
    spec = DataSpec("tabular", (20,), ("a", "b"))
    source = exported(nn.Sequential(nn.Linear(20, 2)), spec, tmp_path)
    inputs = [batch(spec, 10_000)]
    inputs[0][0, 0] = 40
    int8.static(source, tmp_path / "int8.onnx", inputs, calibration=calibration)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    scale = next(to_array(t) for t in graph.initializer if t.name == "input_scale")
    low = inputs[0].min().item()
    if calibration == "percentile":
        assert scale < 0.5 * (40 - low) / 255
    else:  # entropy keeps one, too, if what is cut off would say more than the steps it costs
        assert scale == pytest.approx((40 - low) / 255, rel=1e-2)


def test_the_same_samples_make_the_same_file(tmp_path: Path) -> None:
    spec = SPECS["image"]
    source = exported(net("cnn", spec), spec, tmp_path)
    for name in ("one", "two"):
        int8.static(source, tmp_path / name, samples(spec))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_without_weights_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = exported(nn.Sequential(nn.Flatten(), nn.Softmax(dim=1)), SPECS["tabular"], tmp_path)
    with pytest.raises(UserError, match="method=quantize_static: nothing in this net can be int8"):
        int8.static(source, tmp_path / "int8.onnx", samples(SPECS["tabular"]))
    with pytest.raises(UserError, match="method=quantize_dynamic: nothing in this net can be int8"):
        int8.dynamic(source, tmp_path / "int8.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["float.onnx"]


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'dlrun\[compress\]'"):
        int8.dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
