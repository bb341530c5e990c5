"""What does malloc cost a training on a CPU? Speed and memory of a bare loop, with glibc as it is and otherwise.

    system    as it is
    kept      what dlrun does: `keep_freed_memory`
    hugetlb   GLIBC_TUNABLES=glibc.malloc.hugetlb=1, which only a process's environment can ask for
    thp       kept, and torch's own THP_MEM_ALLOC_ENABLE=1: large tensors on huge pages

Each measurement is a process of its own, in turn; the peak is that of the whole process, Python and torch included.

    python benchmarks/allocator.py [--rounds 3] [--seconds 2.5] [--models mlp cnn]
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from typing import Any

from measure import arguments, interleaved, ratio, report

from dlrun.allocator import keep_freed_memory

SETTINGS = {
    "system": {},
    "kept": {},
    "hugetlb": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "thp": {"THP_MEM_ALLOC_ENABLE": "1"},
}
MODELS = ("mlp", "cnn", "cnn 512", "resnet18")


def example(name: str) -> Any:
    """A model and a batch of 128 (cnn 512: of 512; resnet18: of 32)."""
    import torch
    from torch import nn

    family, _, size = name.partition(" ")
    if family == "mlp":
        widths = [784, 512, 256, 128]
        layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU(), nn.Dropout(0.3))]
        return nn.Sequential(*layers, nn.Linear(128, 10)), torch.randn(128, 784)
    if family == "cnn":
        blocks: list[nn.Module] = []
        for before, after in pairwise((3, 32, 64, 128)):
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        head = [nn.Flatten(), nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)]
        model, batch = nn.Sequential(*blocks, *head), torch.randn(int(size or 128), 3, 32, 32)
    else:
        import torchvision

        model, batch = torchvision.models.resnet18(num_classes=10), torch.randn(32, 3, 32, 32)
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()  # as for CIFAR
    return model.to(memory_format=torch.channels_last), batch.to(memory_format=torch.channels_last)


def child(name: str, setting: str, seconds: float, threads: int) -> None:
    """Train for so long; prints the median step and what the kernel knows of the process."""
    if setting in ("kept", "thp") and not keep_freed_memory():
        sys.exit("malloc isn't glibc's, or is set already")
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, inputs = example(name)
    targets = torch.randint(10, (len(inputs),))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 5:
        began = time.perf_counter()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        taken.append(time.perf_counter() - began)
        if len(taken) == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    used = resource.getrusage(resource.RUSAGE_SELF)
    faults = (used.ru_minflt - before) / (len(taken) - 3)
    print(json.dumps({"step": statistics.median(taken[3:]), "peak": used.ru_maxrss / 1024, "faults": faults}))


def main() -> None:
    words = arguments(__doc__, rounds=3)
    words.add_argument("--seconds", type=float, default=2.5, help="of training in each process")
    words.add_argument("--models", nargs="+", choices=MODELS, default=["mlp", "cnn"])
    words.add_argument("--child", nargs=2, metavar=("MODEL", "SETTING"), help="one measurement, in this process")
    args = words.parse_args()
    if args.child:
        child(*args.child, args.seconds, args.threads)
        return
    memory: dict[tuple[str, str], dict[str, float]] = {}

    def measured(name: str, setting: str) -> float:
        command = [sys.executable, __file__, "--child", name, setting]
        command += ["--seconds", str(args.seconds), "--threads", str(args.threads)]
        done = subprocess.run(command, env=os.environ | SETTINGS[setting], stdout=subprocess.PIPE, check=True)
        result: dict[str, float] = json.loads(done.stdout)
        memory[name, setting] = result
        return result["step"]

    rows = []
    for name in args.models:
        cases = {setting: partial(measured, name, setting) for setting in SETTINGS}
        taken = interleaved(cases, args.rounds, warmup=0)
        for setting in SETTINGS:
            faster, last = 1 / ratio(taken, setting, "system"), memory[name, setting]
            peak = last["peak"] / memory[name, "system"]["peak"]
            rows.append((f"{name}, {setting}", faster, 1000 * statistics.median(taken[setting]), last["faults"], peak))
    header = ("model, setting", "times as fast", "ms/step", "page faults/step", "peak memory, times")
    report("allocator", header, rows, rounds=args.rounds, threads=args.threads)


if __name__ == "__main__":
    main()
