"""The memory that an artifact takes, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlrun.benching.memory import peak
from dlrun.comparison.subjects import RUNTIMES, Opened, Opener, open_file, under
from dlrun.loading import load_run
from dlrun.machine import settle

CHILD = "from dlrun.comparison.footprint import answer; answer()"


def footprint(opener: Opener, opened: Opened, inputs: Tensor, named: bool) -> dict[str, int | None]:
    """What loading it and running it on `inputs` takes; see `benching.memory.peak`. Raises RuntimeError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(inputs.cpu(), Path(folder, "inputs.pt"))
        request = {
            "inputs": str(Path(folder, "inputs.pt")),
            "run": str(opened.run.folder.path),
            "checkpoint": opened.run.checkpoint.stem,
            "file": opened.file and str(opened.file),
            "runtime": opened.runtime,
            "device": opener.run.device.type,
            "threads": opener.threads,
            "overrides": opener.overrides,
            "named": named,
        }
        done = subprocess.run(
            [sys.executable, "-P", "-c", CHILD],  # else it would import what lies in the current folder first
            input=json.dumps(request),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    found: dict[str, int | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def answer() -> None:
    """In the process of its own: reads what to open, prints what it took."""
    asked = json.load(sys.stdin)
    device = settle(asked["device"], asked["threads"])
    inputs = torch.load(asked["inputs"], weights_only=True).to(device)
    _import_libraries(asked["runtime"])

    def load() -> Callable[[Tensor], Any]:
        if asked["file"] is not None:
            return open_file(Path(asked["file"]), device, asked["threads"], asked["named"])
        run = load_run(asked["run"], asked["checkpoint"], asked["overrides"], device=device.type)
        return under(run.evaluator().model, run.precision)

    print(json.dumps(peak(load, inputs)))


def _import_libraries(runtime: str) -> None:
    """What is only imported when a file is opened isn't what the file takes."""
    if runtime == RUNTIMES["onnx"]:
        import onnxruntime  # noqa: F401
    elif runtime in (RUNTIMES["pt2"], RUNTIMES["aoti"]):
        import torch._dynamo
        import torch.export  # noqa: F401
