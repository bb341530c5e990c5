"""torch.export's own file: the graph that PyTorch, and what is built on it, goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor, nn

from dlrun.atomic import atomic_write
from dlrun.exporting.dynamism import example, program
from dlrun.exporting.metadata import NAME
from dlrun.exporting.quiet import quiet
from dlrun.spec import DataSpec


def write(
    model: nn.Module, spec: DataSpec, path: Path, metadata: Mapping[str, str], inputs: Tensor | None = None
) -> None:
    """`model` (in eval mode) as one file, `path`, whole or not there, with an open batch and length."""
    inputs = example(spec) if inputs is None else inputs
    with quiet():
        graph = program(model, inputs, spec.modality == "text")
        with atomic_write(path) as file:
            torch.export.save(graph, cast(IO[bytes], file), extra_files={NAME: json.dumps(dict(metadata))})
