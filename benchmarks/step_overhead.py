"""What does a step cost beside the step? A tiny MLP at batch 32, where the loop is all there is to see.

The floor is the bare step on batches that lie in memory. What others add to it is given in microseconds per step.

    python benchmarks/step_overhead.py [--rounds 9] [--threads 1]
"""

from __future__ import annotations

import argparse
import copy
import statistics
from pathlib import Path

import torch
from measure import arguments, interleaved, ratio, report
from subjects import Dlrun, floor, indexing, lightning, temporary, usual
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, BATCH, FEATURES = 500, 32, 64
WORDS = ["data=fake", "data.modality=tabular", f"data.shape=[{FEATURES}]", f"data.batch_size={BATCH}", "augment=none"]
WORDS += ["model=mlp", "model.hidden_sizes=[64,64]", "model.dropout=0.0", "scheduler=cosine", "optimizer.lr=1e-4"]


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--lightning", action=argparse.BooleanOptionalAction, default=True)
    args = words.parse_args()
    torch.manual_seed(0)
    inputs, targets = torch.randn(STEPS * BATCH, FEATURES), torch.randint(10, (STEPS * BATCH,))
    batches = list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True))
    loader = DataLoader(TensorDataset(inputs, targets), BATCH, shuffle=True)
    with temporary() as path:
        common = [*WORDS, f"data.size={STEPS * BATCH * 10 // 9 + 1}", f"trainer.num_threads={args.threads}"]
        runs = {
            "dlrun, all defaults": Dlrun([*common, "tracking.wandb.mode=offline"], Path(path)),
            "dlrun, no tracker": Dlrun([*common, "tracking=none"], Path(path)),
        }

        def subject() -> tuple[nn.Module, torch.optim.Optimizer]:
            model = copy.deepcopy(runs["dlrun, no tracker"].trainer.weights)
            return model, adamw(model)

        cases = {"floor": floor(*subject(), batches)}
        cases |= {name: run.epoch for name, run in runs.items()}
        cases |= {f"{name}, whole epochs": run.whole_epoch for name, run in list(runs.items())[:1]}
        cases["indexing"] = indexing(*subject(), (inputs, targets), BATCH, lambda batch: batch)
        cases["usual loop"] = usual(*subject(), loader)
        if args.lightning:
            for name, quiet in (("Lightning, all off", True), ("Lightning, defaults", False)):
                cases[name] = lightning(subject()[0], (inputs, targets), BATCH, args.threads, path, quiet)
        torch.set_num_threads(args.threads)
        steps = dict.fromkeys(cases, STEPS) | {name: run.per_epoch for name, run in runs.items()}
        steps |= {f"{name}, whole epochs": run.per_epoch for name, run in runs.items()}
        seconds = interleaved(cases, args.rounds)
        for run in runs.values():
            run.close()
    each = {name: [1e6 * s / steps[name] for s in taken] for name, taken in seconds.items()}
    above = {
        name: statistics.median(a - b for a, b in zip(taken, each["floor"], strict=True))
        for name, taken in each.items()
    }
    rows = [(name, statistics.median(taken), above[name], ratio(each, name, "floor")) for name, taken in each.items()]
    report("step_overhead", ("loop", "µs/step", "above the floor", "ratio"), rows, batch=BATCH, rounds=args.rounds)


if __name__ == "__main__":
    main()
