"""TorchScript, by tracing. Deprecated by PyTorch in favour of torch.export; still what many C++ programs load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dlrun.atomic import atomic_write
from dlrun.exporting.dynamism import example
from dlrun.exporting.metadata import NAME
from dlrun.exporting.quiet import quiet
from dlrun.spec import DataSpec


def write(
    model: nn.Module, spec: DataSpec, path: Path, metadata: Mapping[str, str], inputs: Tensor | None = None
) -> None:
    """`model` (in eval mode) as one file, `path`, whole or not there; it takes any batch, and texts of any length."""
    inputs = example(spec) if inputs is None else inputs
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(model, (inputs,), check_trace=False)
        with atomic_write(path) as file:
            torch.jit.save(traced, file, _extra_files={NAME: json.dumps(dict(metadata))})
