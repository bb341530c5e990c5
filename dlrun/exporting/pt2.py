"""torch.export's own file: the graph that PyTorch, and what is built on it, goes on from."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from dlrun.atomic import atomic_write
from dlrun.exporting.dynamism import example, program
from dlrun.exporting.graph import Graph
from dlrun.exporting.metadata import NAME
from dlrun.exporting.quiet import quiet
from dlrun.spec import DataSpec

log = logging.getLogger("dlrun")


def write(
    model: nn.Module, spec: DataSpec, path: Path, metadata: Mapping[str, str], inputs: Tensor | None = None
) -> None:
    """`model` (in eval mode) as one file, `path`, whole or not there, with an open batch and length."""
    inputs = example(spec) if inputs is None else inputs
    archive = io.BytesIO()  # torch ends the process when the disk is full
    with quiet():
        graph = _open_from_one(model, inputs, spec.modality == "text")
        torch.export.save(graph, archive, extra_files={NAME: json.dumps(dict(metadata))})
    with atomic_write(path) as file:
        file.write(archive.getbuffer())


def _open_from_one(model: nn.Module, inputs: Tensor, text: bool) -> ExportedProgram:
    """The graph of `model`, which takes a batch of one too.

    A picture of 1×1 has the strides of either order of pixels, and torch.export tells them apart by whether there are
    two of them (torch._subclasses.fake_impls.conv): the graph is for two or more then, or for a net in the usual order.
    """
    graph = program(model, inputs, text)
    if not isinstance(model, Graph) or not model.channels_last:
        return graph
    try:
        with torch.no_grad():
            graph.module()(inputs[:1])
    except Exception as error:  # of a class that depends on torch's version
        log.debug("exported with channels first: %s", error)
        return program(model.channels_first(), inputs, text)
    return graph
