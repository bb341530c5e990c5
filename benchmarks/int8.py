"""How fast is int8 in ONNX Runtime? Against the same net's float file in ONNX Runtime, in turn.

Times as fast (more is better) at batches of 1 and 64, the files' sizes, and the relative error of the logits. The nets
have random weights, what they compute takes as long as with others. `vnni` says whether this processor multiplies
bytes and adds them up in one instruction (AVX-512 VNNI, AVX-VNNI, AMX, or ARM's dotprod).

    python benchmarks/int8.py [--rounds 9] [--models mlp cnn lstm transformer]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import arguments, interleaved, ratio, report
from torch import Tensor

from dlrun.compression.int8 import dynamic, static
from dlrun.exporting.onnx import write
from dlrun.exporting.runtime import Runner, open_artifact
from dlrun.precision import cpu_has
from dlrun.registry import models
from dlrun.spec import DataSpec

TEN = tuple("0123456789")
GRAY, COLOUR = DataSpec("image", (1, 28, 28), TEN), DataSpec("image", (3, 32, 32), TEN)
WORDS = DataSpec("text", (64,), TEN, vocab_size=5000)
CASES = {
    "mlp": ({}, GRAY),
    "cnn": ({}, COLOUR),
    "speednet": ({}, COLOUR),
    "lstm": ({}, WORDS),
    "transformer": ({}, COLOUR),
}
ENOUGH = 0.05  # seconds, of calls that are timed together


def batch(spec: DataSpec, size: int) -> Tensor:
    if spec.modality == "text":
        return torch.randint(1, spec.vocab_size, (size, *spec.shape))
    return torch.randn(size, *spec.shape)


def calls(runner: Runner, inputs: Tensor) -> Callable[[], float]:
    began = time.perf_counter()
    runner(inputs)
    number = max(1, round(ENOUGH / (time.perf_counter() - began)))

    def timed() -> float:
        began = time.perf_counter()
        for _ in range(number):
            runner(inputs)
        return (time.perf_counter() - began) / number

    return timed


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.models:
        options, spec = CASES[name]
        torch.manual_seed(0)
        model = models.build(name, options, spec).eval()
        with tempfile.TemporaryDirectory() as folder:
            files = {kind: Path(folder) / f"{kind}.onnx" for kind in ("float", "static", "dynamic")}
            write(model, spec, files["float"], {})
            static(files["float"], files["static"], [batch(spec, 64) for _ in range(4)])
            dynamic(files["float"], files["dynamic"])
            runners = {kind: open_artifact(file, threads=args.threads) for kind, file in files.items()}
            sizes = {kind: file.stat().st_size for kind, file in files.items()}
        shown, taken = batch(spec, 64), {}
        for size in (1, 64):
            inputs = shown[:size].contiguous()
            taken[size] = interleaved({kind: calls(runner, inputs) for kind, runner in runners.items()}, args.rounds)
        floats = runners["float"](shown)
        for kind in ("static", "dynamic"):
            error = ((runners[kind](shown) - floats).norm() / floats.norm()).item()
            speed = [1 / ratio(taken[size], kind, "float") for size in (1, 64)]
            rows.append((name, kind, *speed, sizes[kind] / sizes["float"], error))
    has_vnni = cpu_has("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
    header = ("model", "int8", "× at batch 1", "× at batch 64", "bytes of float's", "error")
    report("int8", header, rows, vnni=has_vnni)


if __name__ == "__main__":
    main()
