"""AOTInductor: the net compiled to machine code, in a package that needs torch's C++ library and no Python."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dlrun.atomic import atomic_write
from dlrun.errors import UserError
from dlrun.exporting.dynamism import example, program, symbolic_shapes
from dlrun.exporting.quiet import quiet
from dlrun.exporting.recurrence import looped
from dlrun.spec import DataSpec


def write(
    model: nn.Module, spec: DataSpec, path: Path, metadata: Mapping[str, str], inputs: Tensor | None = None
) -> None:
    """`model` (in eval mode) compiled for the device that it is on, and on a CPU for this kind of it.

    `path` is whole or not there. What the compiler leaves lies in torch's own cache. Raises UserError without one.
    """
    require()
    inputs = example(spec) if inputs is None else inputs
    half = any(parameter.dtype == torch.float16 for parameter in model.parameters())
    with quiet(), tempfile.TemporaryDirectory(prefix="dlrun-") as folder:
        graph = looped(program(model, inputs, spec.modality == "text"), inputs.device, half)
        with torch.no_grad(), symbolic_shapes.patch(backed_size_oblivious=True):
            package = torch._inductor.aoti_compile_and_package(
                graph,
                package_path=str(Path(folder, "model.pt2")),
                inductor_configs={"aot_inductor.metadata": dict(metadata)},
            )
        with atomic_write(path) as file, open(package, "rb") as made:
            shutil.copyfileobj(made, file)


def require() -> None:
    """Raise UserError unless there is a C++ compiler: torch takes the one that CXX names, or g++."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"format=aoti needs a C++ compiler, and there is no {compiler}: install g++, or take pt2")
