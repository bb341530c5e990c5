"""An ONNX file with int8 weights, for ONNX Runtime: activations with fixed ranges (static), or with each call's own.

Static: convolutions take and give uint8, matrix products with weights take uint8 and give floats, and what only passes
numbers on (max-pooling, reshapes) stays in uint8. So a linear layer's output, the logits above all, is never rounded,
nor are residuals, norms, softmax and attention's own products: on digits that halves the error on a CNN and takes it to
a quarter on an MLP and a half on a transformer, against rounding all that can be, at the same speed. Weights are int8
with a scale per output, of 7 bits by default: two of their products fit into 16 bits, which is how processors without
VNNI add them up.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from dlrun.atomic import atomic_write
from dlrun.errors import UserError

Calibration = Literal["minmax", "entropy", "percentile"]
PRODUCTS = ("Conv", "Gemm", "MatMul")
PASSES_ON = ("MaxPool", "Relu", "Reshape")  # as they are, on uint8
EMBEDDINGS = ("Gather",)
RECURRENT = ("LSTM", "GRU", "RNN")
Grid = tuple[float, int]  # size of a step, and the step at which 0 is


@dataclass(frozen=True)
class Learned:
    """A layer's weight as it will be in the graph, and the grids that training found for what it takes and gives."""

    weight: np.ndarray
    takes: Grid | None
    gives: Grid | None


@dataclass(frozen=True)
class Quantized:
    """What became of a file: kinds of nodes with weights → how many are int8 now, and how many aren't."""

    nodes: dict[str, int]
    left: dict[str, int]
    bytes_before: int
    bytes: int


def static(
    source: Path,
    target: Path,
    samples: Iterable[Tensor],
    *,
    calibration: Calibration = "minmax",
    reduce_range: bool = True,
    learned: Sequence[Learned] | None = None,
) -> Quantized:
    """Quantise the ONNX file `source` with the ranges that batches of `samples` show; writes `target` atomically.

    With `learned`, the ranges are those, and layers that aren't among them stay as they are. Raises UserError if
    there is nothing to quantise, or the extra isn't installed.
    """
    quantization = require()
    methods = quantization.CalibrationMethod
    method = {"minmax": methods.MinMax, "entropy": methods.Entropy, "percentile": methods.Percentile}[calibration]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.batches = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch.contiguous().numpy()}

    with _prepared(source) as (folder, graph):
        ranges, excluded = ({}, []) if learned is None else _learned_ranges(graph, learned)
        quantization.quantize_static(
            folder / "prepared.onnx",
            folder / "int8.onnx",
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=[*PRODUCTS, *PASSES_ON, *EMBEDDINGS],
            nodes_to_exclude=excluded,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=method,
            extra_options={
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                # What is looked up isn't multiplied with: it needs no bit less.
                "TensorQuantOverrides": ranges | {table: [{"reduce_range": False}] for table in _tables(graph)},
            },
        )
        return _finish(folder / "int8.onnx", target, source, "quantize_static" if learned is None else "qat")


def dynamic(source: Path, target: Path, *, reduce_range: bool = True) -> Quantized:
    """Quantise linear and recurrent (LSTM) layers and embeddings of the ONNX file `source`; writes `target` atomically.

    What a layer takes is rounded in each call, to the range that it has there: nothing has to be calibrated.
    Convolutions stay floats: without fixed ranges they are several times as slow. Raises UserError as `static`.
    """
    quantization = require()
    with _prepared(source) as (folder, _):
        quantization.quantize_dynamic(
            folder / "prepared.onnx",
            folder / "int8.onnx",
            op_types_to_quantize=["MatMul", "Gemm", "LSTM", *EMBEDDINGS],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return _finish(folder / "int8.onnx", target, source, "quantize_dynamic")


def require() -> Any:
    """ONNX Runtime's quantiser. Raises UserError where it isn't installed."""
    try:
        import onnx  # noqa: F401
        from onnxruntime import quantization
    except ImportError:
        raise UserError("int8 needs onnx and onnxruntime: pip install 'dlrun[compress]'") from None
    return quantization


@contextmanager
def _prepared(source: Path) -> Iterator[tuple[Path, Any]]:
    """A folder with the file as ORT's quantiser wants it, batch norms folded and shapes known; and its graph."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Its advice goes to the root logger, and its histograms tell of themselves by `print`.
        with redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory(prefix="dlrun-int8-") as name:
            folder = Path(name)
            quant_pre_process(str(source), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
            model = onnx.load(str(folder / "prepared.onnx"))
            for number, node in enumerate(model.graph.node):
                node.name = node.name or f"node_{number}"
            onnx.save(model, str(folder / "prepared.onnx"))
            yield folder, model.graph
    finally:
        logging.disable(level)


def _learned_ranges(graph: Any, learned: Sequence[Learned]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Tensor → its grid, as the quantiser takes it; and the nodes of which nothing was learned."""
    from onnx.numpy_helper import to_array

    weights = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    after_relu = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Relu"}
    overrides: dict[str, list[dict[str, Any]]] = {}
    excluded, waiting = [], list(learned)

    def note(tensor: str, grid: Grid | None) -> None:
        if grid is not None:
            scale, zero = np.array(grid[0], np.float32), np.array(grid[1], np.uint8)
            overrides[tensor] = [{"scale": scale, "zero_point": zero}]

    for node in graph.node:
        if node.op_type not in PRODUCTS:
            continue
        # Layers whose weights are the same come in the order in which they run; one that runs twice is there once.
        fits = (layer for layer in (*waiting, *learned) if _is_weight(weights.get(node.input[1]), node, layer))
        if (layer := next(fits, None)) is None:
            excluded.append(node.name)
            continue
        waiting = [other for other in waiting if other is not layer]
        output = node.output[0]
        note(node.input[0], layer.takes)
        note(after_relu[output] if output in after_relu and readers[output] == 1 else output, layer.gives)
    return overrides, excluded


def _tables(graph: Any) -> set[str]:
    """The embeddings of a graph."""
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == 1}
    return {node.input[0] for node in graph.node if node.op_type in EMBEDDINGS} & weights


def _is_weight(weight: np.ndarray | None, node: Any, layer: Learned) -> bool:
    """Whether `node` multiplies with that layer's weight; nothing in an optimised graph has a name to rely on."""
    if weight is None:
        return False
    turned = node.op_type == "MatMul" or (
        node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)
    )
    weight = weight.T if turned else weight
    if weight.shape != layer.weight.shape:
        return False
    return bool(np.allclose(weight, layer.weight, rtol=0, atol=1e-4 * np.abs(layer.weight).max()))


def _finish(made: Path, target: Path, source: Path, method: str) -> Quantized:
    """Count, put what belongs to the file into it, and write it."""
    import onnx

    model = onnx.load(str(made))
    _keep_floats(model.graph)
    nodes, left = _counts(model.graph)
    if not nodes:
        kinds = f"the weights are all in {', '.join(sorted(left))}" if left else "there are no weights in it"
        hint = "; take quantize_static" if "Conv" in left else ""
        raise UserError(f"method={method}: nothing in this net can be int8: {kinds}{hint}")
    metadata: Mapping[str, str] = {p.key: p.value for p in onnx.load(str(source)).metadata_props}
    onnx.helper.set_model_props(model, {**metadata, "quantization": method})
    content = model.SerializeToString()
    with atomic_write(target) as file:
        file.write(content)
    return Quantized(nodes, left, source.stat().st_size, len(content))


def _keep_floats(graph: Any) -> None:
    """Give what reads floats the floats where they are still there: the quantiser rounds a tensor for all its readers.

    A residual, say, or a norm, beside a matrix product that wants uint8.
    """
    makers = {name: node for node in graph.node for name in node.output}
    for dequantize in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        quantize = makers.get(dequantize.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        maker = makers.get(quantize.input[0])
        if maker is not None and (maker.op_type == "Conv" or _is_rounded(maker, makers)):
            continue  # which exist in uint8 alone
        for reader in graph.node:
            if reader.op_type not in (*PRODUCTS, *PASSES_ON):
                for place, name in enumerate(reader.input):
                    if name == dequantize.output[0]:
                        reader.input[place] = quantize.input[0]


def _is_rounded(node: Any, makers: Mapping[str, Any]) -> bool:
    """Whether it passes on, or looks up, what is uint8 already."""
    before = makers.get(node.input[0])
    return node.op_type in (*PASSES_ON, *EMBEDDINGS) and before is not None and before.op_type == "DequantizeLinear"


def _counts(graph: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Kinds of nodes with weights: those in int8, and those in floating point."""
    import onnx

    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    integers = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    stored = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in types}
    nodes, left = Counter[str](), Counter[str]()
    for node in graph.node:
        kind = {"MatMulInteger": "MatMul", "DynamicQuantizeLSTM": "LSTM"}.get(node.op_type, node.op_type)
        place = 0 if kind in EMBEDDINGS else 1
        if kind not in (*PRODUCTS, *EMBEDDINGS, *RECURRENT) or len(node.input) <= place:
            continue
        weight = stored.get(node.input[place], node.input[place])
        if types.get(weight) in integers:
            nodes[kind] += 1
        elif types.get(weight) == onnx.TensorProto.FLOAT and sizes[weight] > 1:
            left[kind] += 1
    return dict(nodes), dict(left)
