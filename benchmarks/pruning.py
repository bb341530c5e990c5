"""How much faster is a net with half of its channels? The CNN on pictures of 32×32, whole, pruned by structure, and
with half of its weights zero, in turn, on one thread and on two.

Ratios are medians of rounds; `speed` is the whole net's time over that of the case. Zeros alone save no time: they are
multiplied like any other number. Weights are random: time doesn't depend on them. Two threads want a machine of their
own: beside other work a batch of one takes as long as the thread that waits for a core.

    python benchmarks/pruning.py [--rounds 41] [--threads 2] [--amount 0.5]
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable

from dlrun.barriers import SPINS

# As the command itself does, before torch comes: a busy neighbour then costs two threads less.
os.environ.setdefault("GOMP_SPINCOUNT", SPINS)

import torch
from measure import arguments, interleaved, ratio, report
from torch import Tensor, nn

from dlrun.build import example
from dlrun.compression import structured, unstructured
from dlrun.layers import count
from dlrun.registry import models
from dlrun.spec import DataSpec

SPEC = DataSpec("image", (3, 32, 32), tuple("abcdefghij"))
SECONDS = 0.03  # of a round, about


def timed(model: nn.Module, batches: list[Tensor]) -> Callable[[], float]:
    """Seconds of a call, over as many as fill a round; the input is another one each time."""

    def calls(number: int) -> float:
        began = time.perf_counter()
        for place in range(number):
            model(batches[place % len(batches)])
        return (time.perf_counter() - began) / number

    calls(3)
    number = max(1, round(SECONDS / calls(3)))
    return lambda: calls(number)


@torch.inference_mode()
def main() -> None:
    words = arguments(__doc__, rounds=41)
    words.set_defaults(threads=2)
    words.add_argument("--amount", type=float, default=0.5, help="the share that is removed")
    words = words.parse_args()
    torch.manual_seed(0)
    whole = models.build("cnn", {}, SPEC).eval()
    with torch.inference_mode(False):
        pruned, _ = structured.prune(whole, SPEC, words.amount)
        sparse = copy.deepcopy(whole)
        unstructured.prune(sparse, words.amount)
    nets = {"whole": whole, "structured": pruned.eval(), "unstructured": sparse.eval()}
    facts = {
        name: (sum(p.numel() for p in net.parameters()), count(net, example(SPEC)).total.flops)
        for name, net in nets.items()
    }
    for net in nets.values():
        net.to(memory_format=torch.channels_last)
    rows = []
    for threads in range(1, words.threads + 1):
        torch.set_num_threads(threads)
        for size in (1, 8, 64):
            batches = [torch.randn(size, *SPEC.shape).contiguous(memory_format=torch.channels_last) for _ in range(8)]
            cases = {name: timed(net, batches) for name, net in nets.items()}
            taken = interleaved(cases, words.rounds, warmup=3)
            for name, (parameters, flops) in facts.items():
                speed = ratio(taken, "whole", name)
                rows.append((threads, size, name, parameters, flops, statistics.median(taken[name]) * 1e6, speed))
    header = ("threads", "batch", "net", "parameters", "FLOPs", "µs", "speed")
    report("pruning", header, rows, rounds=words.rounds, amount=words.amount)


if __name__ == "__main__":
    main()
