"""From what a run folder holds to something that can be called: opened, with its inputs, and judged like the others."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.benching.artifacts import Artifact, size
from dlrun.data.loader import Batches
from dlrun.errors import UserError
from dlrun.loading import LoadedRun, is_int8, load_run
from dlrun.precision import Precision
from dlrun.registry import precisions
from dlrun.spec import DataSpec

RUNTIMES = {"onnx": "ONNX Runtime", "torchscript": "TorchScript", "pt2": "torch.export", "aoti": "AOTInductor"}
EAGER = "PyTorch"


@dataclass
class Opened:
    """An artifact that can be called: `call(prepare(raw))` gives logits (B, K)."""

    artifact: Artifact
    run: LoadedRun  # that it is, or that it was exported of
    model: nn.Module
    precision: Precision  # under which it is called
    prepare: Callable[[Tensor], Tensor]
    runtime: str
    numbers: str  # fp32, bf16, fp16 or int8

    @property
    def call(self) -> Callable[[Tensor], Any]:
        return under(self.model, self.precision)

    @property
    def file(self) -> Path | None:
        """What its runtime opens; None of a net in PyTorch."""
        if not self.artifact.is_run:
            return self.artifact.path
        return self.run.folder.int8 if is_int8(self.run.config) else None

    @property
    def bytes(self) -> int:
        """What a user would ship: the file; of a training's checkpoint, which has more in it, the weights."""
        if self.file is not None:
            return size(self.file)
        file = io.BytesIO()
        torch.save(self.model.state_dict(), file)
        return file.tell()

    def evaluate(self, test: Batches) -> dict[str, float]:
        """Loss and accuracy on the test split, each sample seen once, as it is."""
        judge = replace(self.run.evaluator(), model=self.model, precision=self.precision, tta="none")
        found = judge.evaluate(replace(test, prepare=self.prepare), "test")
        return {name.partition("/")[2]: value for name, value in found.items()}


class Opener:
    """Opens artifacts of one run on one device; each run is loaded once."""

    def __init__(self, run: LoadedRun, threads: int, overrides: Sequence[str] = ()):
        self.run, self.threads, self.overrides = run, threads, list(overrides)
        self.runs = {run.folder.path: run}

    def open(self, artifact: Artifact, named: bool = False) -> Opened:
        """`named`: somebody asked for this one by its name. Raises UserError, and whatever a runtime raises."""
        run = self.runs.get(artifact.run) or self._load(artifact.run)
        if artifact.is_run:
            int8 = is_int8(run.config)
            name = "int8" if int8 else "bf16" if run.precision.name == "bf16_weights" else run.precision.name
            precision = fp32(run) if int8 else run.precision
            runtime = RUNTIMES["onnx"] if int8 else EAGER
            return Opened(artifact, run, run.evaluator().model, precision, run.prepare, runtime, name)
        model = open_file(artifact.path, self.run.device, self.threads, named)
        prepare = _as_measured(run.spec) if artifact.facts.get("preprocess") else _contiguous(run.prepare)
        numbers = "int8" if artifact.facts.get("quantized") else "fp16" if artifact.facts.get("half") else "fp32"
        runtime = RUNTIMES.get(artifact.format, artifact.format)
        return Opened(artifact, run, model, fp32(run), prepare, runtime, numbers)

    def _load(self, folder: Path) -> LoadedRun:
        self.runs[folder] = load_run(folder, "best", self.overrides, device=self.run.device.type)
        return self.runs[folder]


def open_file(path: Path, device: torch.device, threads: int, named: bool) -> nn.Module:
    """An exported file in its runtime. Raises UserError for what can't run there, or mustn't."""
    from dlrun.exporting import metadata
    from dlrun.exporting.own_packages import known
    from dlrun.exporting.runtime import open_artifact

    made_for = "cpu" if path.suffix == ".onnx" else metadata.read(path).get("device", "cpu")
    if device.type != made_for:
        raise UserError(f"runs on {made_for}, not on {device.type}")
    if path.suffix != ".onnx" and not named and not known(path):
        raise UserError(f"not run: {path.name} can hold code, and wasn't exported here; name it to run it (artifact=…)")
    return open_artifact(path, threads=threads, trusted=named)


def under(model: nn.Module, precision: Precision) -> Callable[[Tensor], Any]:
    """The model as it is called in that precision, with nothing around it where there needn't be."""
    if isinstance(precision.autocast(), nullcontext):
        return model

    def cast(inputs: Tensor) -> Any:
        with precision.autocast():
            return model(inputs)

    return cast


def fp32(run: LoadedRun) -> Precision:
    precision: Precision = precisions.build("fp32", {}, run.device)
    return precision


def _as_measured(spec: DataSpec) -> Callable[[Tensor], Tensor]:
    """What a file takes that normalises by itself: uint8 pixels as they are, features before they were standardised."""
    if spec.modality == "image":
        return lambda raw: raw
    mean, std = torch.tensor(spec.mean, dtype=torch.float64), torch.tensor(spec.std, dtype=torch.float64)
    return lambda raw: (raw.double() * std + mean).float()


def _contiguous(prepare: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In the order that every runtime takes without a copy of its own, which would be timed."""
    return lambda raw: prepare(raw).contiguous()
