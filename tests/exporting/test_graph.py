"""Normalisation and half precision in the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from nets import SPECS, batch, net

from dlrun.data.prepare import preparation
from dlrun.errors import OptionError
from dlrun.exporting import onnx
from dlrun.exporting.dynamism import example
from dlrun.exporting.graph import Graph


def test_uint8_pixels_go_in(tmp_path: Path) -> None:
    spec, model = SPECS["image"], net("cnn", "image")
    graph = Graph(model, spec, preprocess=True)
    onnx.write(graph, spec, tmp_path / "net.onnx", {}, example(spec, preprocess=True))
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for size in (1, 5):
        pixels = np.random.default_rng(size).integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        with torch.no_grad():
            wanted = model(preparation(spec, torch.device("cpu"))(torch.from_numpy(pixels)))
        got = session.run(["logits"], {"input": pixels})[0]
        np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=1e-6)


def test_rows_go_in_as_they_were_measured() -> None:
    """Also where a feature never changes, whose deviation is next to nothing."""
    spec, model = SPECS["tabular"], net("mlp", "tabular")
    standard = batch("tabular", 7).double()
    standard[:, 3] = 0  # std 1e-12: the others divide by what they vary, this one by nothing
    raw = standard * torch.tensor(spec.std).double() + torch.tensor(spec.mean).double()
    with torch.no_grad():
        got, wanted = Graph(model, spec, preprocess=True)(raw.float()), model(standard.float())
    assert torch.allclose(got, wanted, atol=1e-3)


def test_half_precision_is_inside(tmp_path: Path) -> None:
    spec, model = SPECS["image"], net("cnn", "image", hidden_size=256)
    graph = Graph(model, spec, half=True)
    assert {p.dtype for p in graph.parameters()} == {torch.float16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    onnx.write(graph, spec, tmp_path / "half.onnx", {})
    onnx.write(Graph(model, spec), spec, tmp_path / "whole.onnx", {})
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "whole.onnx").stat().st_size
    session, inputs = onnxruntime.InferenceSession(tmp_path / "half.onnx"), batch("image", 5)
    assert [value.type for value in (session.get_inputs()[0], session.get_outputs()[0])] == ["tensor(float)"] * 2
    with torch.no_grad():
        wanted = model(inputs)
    got = torch.from_numpy(session.run(None, {"input": inputs.numpy()})[0])
    assert 0 < (got - wanted).abs().max() < 1e-2 * wanted.abs().max()


def test_a_graph_can_order_its_pixels() -> None:
    spec, model = SPECS["image"], net("cnn", "image")
    seen = []
    graph = Graph(model, spec, channels_last=True)
    graph.network.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    inputs = batch("image", 3)
    with torch.no_grad():
        assert torch.allclose(graph(inputs), model(inputs), atol=1e-6)
    assert seen == [True]


def test_what_isnt_normalised_is_refused() -> None:
    with pytest.raises(OptionError, match="the tokenizer is in the file's metadata"):
        Graph(net("mlp", "text"), SPECS["text"], preprocess=True)
