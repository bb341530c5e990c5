"""What does `trainer.compile` cost to start with, and what does it bring? Against the same model without it.

Seconds until the first step is taken (a compiler that has never seen the model), and times as fast a step (forward,
backward, fused AdamW, batch 128) in turn with the uncompiled one. The transformer has six layers, compiled as a whole
and as one block for all.

    python benchmarks/compile.py [--rounds 9] [--models mlp cnn] [--device cpu]
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from os import environ

import torch
import torch.nn.functional as F
from measure import arguments, interleaved, ratio, report
from torch import nn

from dlrun.allocator import keep_freed_memory
from dlrun.compiling import Compilation, compiled
from dlrun.registry import models, precisions, tasks
from dlrun.spec import DataSpec

TEN = tuple("0123456789")
GRAY, COLOUR = DataSpec("image", (1, 28, 28), TEN), DataSpec("image", (3, 32, 32), TEN)
# name → model, options, data, regions
CASES = {
    "mlp": ("mlp", {}, GRAY, ("model",)),
    "cnn": ("cnn", {}, COLOUR, ("model",)),
    "transformer": ("transformer", {"num_layers": 6}, COLOUR, ("model", "blocks")),
}
STEPS = 3  # per measurement


def stepping(model: nn.Module, called: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def steps() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            F.cross_entropy(called(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if inputs.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return steps


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    words.add_argument("--device", default="cpu")
    words.add_argument("--mode", default="default", help="of torch.compile")
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_freed_memory()  # as dlrun does
    precision = precisions.build("fp32", {}, device)
    rows = []
    for name in args.models:
        family, options, spec, regions = CASES[name]
        torch.manual_seed(0)
        model = models.build(family, options, spec).to(device)
        batch = torch.randn(128, *spec.shape, device=device), torch.randint(10, (128,), device=device)
        if name == "cnn":
            model, batch = (
                model.to(memory_format=torch.channels_last),
                (
                    batch[0].to(memory_format=torch.channels_last),
                    batch[1],
                ),
            )
        task = tasks.build("classification", {}, spec, torch.ones(10, dtype=torch.int64)).to(device)
        cases, seconds = {"none": stepping(model, model, *batch)}, {"none": 0.0}
        for region in regions:
            torch._dynamo.reset()
            environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
            how = Compilation(args.mode, region, device, varies=False, halves=False, accumulates=False)
            twin, began = copy.deepcopy(model), time.perf_counter()
            called = compiled(twin, how, batch, task, precision)
            seconds[region] = time.perf_counter() - began
            cases[region] = stepping(twin, called, *batch)
        taken = interleaved(cases, args.rounds)
        for region, figures in taken.items():
            faster, milliseconds = 1 / ratio(taken, region, "none"), 1000 * statistics.median(figures) / STEPS
            rows.append((f"{name}, {region}", seconds[region], faster, milliseconds))
    header = ("model, compiled region", "seconds to compile", "times as fast", "ms/step")
    report("compile", header, rows, rounds=args.rounds, mode=args.mode)


if __name__ == "__main__":
    main()
