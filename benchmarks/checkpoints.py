"""What do checkpoints cost? A state of 100 MB saved every 20 steps, against never saving.

python benchmarks/checkpoints.py [--threads 1] [--rounds 9] [--folder DIR]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measure import arguments, interleaved, ratio, report
from torch import nn

from dlrun.data.loader import Batches
from dlrun.data.source import ArraySplit
from dlrun.evaluator import Evaluator
from dlrun.progress import Limits
from dlrun.registry import precisions, schedules, tasks
from dlrun.runfolder import RunFolder
from dlrun.schedules import Clock
from dlrun.spec import DataSpec
from dlrun.tracking import Quiet
from dlrun.tracking.terminal import Terminal
from dlrun.trainer import Trainer
from dlrun.writer import CheckpointWriter

CPU = torch.device("cpu")
SPEC = DataSpec("tabular", (784,), tuple("0123456789"))
BATCH, STEPS, EVERY = 128, 60, 20


class Nowhere:
    """Saves nothing."""

    busy = False

    def put(self, state: dict[str, Any], best: bool = False) -> None: ...

    def latest(self) -> None: ...

    def keep_batch(self, record: dict[str, Any]) -> None: ...


def trainer(writer: Any) -> Trainer:
    """An MLP of 8.3 million parameters with AdamW: 99 MB of state."""
    torch.manual_seed(0)
    widths = [784, 2048, 2048, 1200]
    layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], 10))
    train = ArraySplit(torch.randn(BATCH * STEPS, 784), torch.randint(10, (BATCH * STEPS,)))
    val = train.subset(range(10))
    task = tasks.build("classification", {}, SPEC, torch.bincount(train.targets))
    fp32 = precisions.build("fp32", {}, CPU)
    return Trainer(
        model=model,
        weights=model,
        task=task,
        evaluator=Evaluator(model, task, fp32),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True),
        schedule=schedules.build("none", {}, Clock(STEPS, STEPS), 1e-4, "max"),
        precision=fp32,
        train_batches=Batches(train, BATCH, lambda batch: batch, CPU, shuffle_seed=0),
        val_batches=Batches(val, 10, lambda batch: batch, CPU),
        limits=Limits(max_steps=0, max_epochs=1, save_every=EVERY),
        tracker=Quiet(),
        terminal=Terminal(1, show_bar=False),
        writer=writer,
    )


def epoch(one: Trainer) -> float:
    """Seconds of one more epoch: its steps, a small evaluation, and what saving costs the training."""
    one.limits = replace(one.limits, max_steps=one.limits.max_steps + STEPS)
    began = time.perf_counter()
    one.fit()
    return time.perf_counter() - began


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--folder", type=Path, help="where checkpoints go; a temporary folder if not given")
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as path:
        folder = RunFolder(Path(path))
        folder.checkpoints.mkdir()
        writer = CheckpointWriter(folder, {"config": {}, "spec": {}, "run_id": None, "data": None, "machine": None})
        saving, never = trainer(writer), trainer(Nowhere())
        seconds = interleaved({"never": lambda: epoch(never), "saving": lambda: epoch(saving)}, args.rounds)
        error = writer.close()
        size = folder.last.stat().st_size
    if error is not None:
        raise error
    rows = [
        (name, statistics.median(taken), min(taken), max(taken), ratio(seconds, name, "never"))
        for name, taken in seconds.items()
    ]
    header = ("", "seconds an epoch", "min", "max", "ratio")
    report("checkpoints", header, rows, state_mb=round(size / 1e6, 1), steps=STEPS, every=EVERY)


if __name__ == "__main__":
    main()
