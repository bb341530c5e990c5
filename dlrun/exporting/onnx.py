"""ONNX, by torch's exporter on top of torch.export, with recurrent layers as ONNX's own operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.atomic import atomic_write
from dlrun.errors import UserError
from dlrun.exporting.dynamism import example, program, recurrences_whole
from dlrun.exporting.quiet import quiet
from dlrun.spec import DataSpec

INPUT, OUTPUT = "input", "logits"
AXES = ("batch", "length")  # of the input: the sizes that are open, by their place
LARGEST = 2**31 - 1  # bytes of a protocol buffer


def write(
    model: nn.Module, spec: DataSpec, path: Path, metadata: Mapping[str, str], inputs: Tensor | None = None
) -> None:
    """`model` (in eval mode) as one file, `path`, whole or not there: "input" → "logits", with an open "batch".

    `inputs` is a batch that the graph takes, by default as the model of `spec` takes it; the "length" of a text is open
    too. `metadata` can be read from the file again. Raises UserError without the libraries.
    """
    require()
    inputs = example(spec) if inputs is None else inputs
    with quiet(), recurrences_whole():
        graph = program(model, inputs, spec.modality == "text")
        made = torch.onnx.export(
            graph,
            (inputs,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert made is not None
    proto = made.model_proto
    _name_axes(proto, inputs.ndim if spec.modality == "text" else 1)
    _describe(proto, metadata)
    save(proto, path)


def copy(source: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """The net in `source`, with other metadata. Raises UserError if it can't be read."""
    import onnx

    try:
        proto = onnx.load(source, load_external_data=False)
    except Exception as error:  # of protobuf's classes
        raise UserError(f"{source} can't be read: {error}") from error
    _describe(proto, metadata)
    save(proto, path)


def relabelled(content: bytes, **texts: str) -> bytes:
    """The net in `content` with some of its metadata set anew."""
    import onnx

    proto = onnx.load_from_string(content)
    _describe(proto, {p.key: p.value for p in proto.metadata_props} | texts)
    labelled: bytes = proto.SerializeToString()
    return labelled


def _describe(proto: Any, metadata: Mapping[str, str]) -> None:
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)


def save(proto: Any, path: Path) -> None:
    """An ONNX model (ModelProto) as one file, whole or not there."""
    if proto.ByteSize() > LARGEST:
        raise UserError(
            f"format: {path.name} would be {proto.ByteSize() / 2**30:.1f} GiB, and an .onnx holds 2; take pt2"
        )
    with atomic_write(path) as file:
        file.write(proto.SerializeToString())


def require() -> None:
    """Raise UserError unless the libraries are there that write ONNX."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("format=onnx needs onnx, onnxscript and onnxruntime: pip install 'dlrun[export]'") from None


def _name_axes(proto: Any, open_axes: int) -> None:
    """Call the open sizes what they are, wherever the exporter has its own names for them (s77, s27)."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    names = {dims[place].dim_param: AXES[place] for place in range(open_axes)}
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """From torch's operators to ONNX's, where the exporter knows none."""
    return {torch.ops.aten.rnn_tanh.input: _rnn}


def _rnn(
    input: Any,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """aten::rnn_tanh.input as ONNX's RNN (opset 18), a node for each layer. Its states (D, B, H) come out too."""
    from onnxscript import opset18

    op: Any = opset18  # it takes lists of numbers for constants, and doesn't say so
    directions, each = (2 if bidirectional else 1), (4 if has_biases else 2)
    x = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input  # (L, B, E)
    states = []
    for layer in range(num_layers):
        first = [(layer * directions + direction) * each for direction in range(directions)]

        def stacked(place: int, first: list[int] = first) -> Any:  # (D, …)
            rows = [op.Unsqueeze(params[start + place], [0]) for start in first]
            return op.Concat(*rows, axis=0)

        biases = op.Concat(stacked(2), stacked(3), axis=1) if has_biases else None
        state = op.Slice(hx, [layer * directions], [(layer + 1) * directions], [0])
        x, last = op.RNN(
            x,
            stacked(0),
            stacked(1),
            biases,
            None,
            state,
            direction="bidirectional" if bidirectional else "forward",
            hidden_size=params[1].shape[1],
            activations=["Tanh"] * directions,
        )  # (L, D, B, H)
        x = op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), [0, 0, -1])  # (L, B, D · H)
        states.append(last)
    return (op.Transpose(x, perm=[1, 0, 2]) if batch_first else x), op.Concat(*states, axis=0)
