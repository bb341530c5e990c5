"""What do checkpoints cost? A state of 100 MB saved every 20 steps, against never saving.

python benchmarks/checkpoints.py [--threads 1] [--rounds 9] [--folder DIR]
"""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measure import arguments, interleaved, ratio, report
from subjects import Elsewhere
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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


def bare(folder: Path, saves: bool) -> Callable[[], float]:
    """The loop that most people write, which saves by `torch.save`."""
    one = trainer(Nowhere())
    model, optimizer, split = one.weights, one.optimizer, one.train_batches.split

    def epoch() -> float:
        began = time.perf_counter()
        for step, chosen in enumerate(torch.randperm(BATCH * STEPS).split(BATCH), 1):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(split.inputs[chosen]), split.targets[chosen]).backward()  # type: ignore[attr-defined]
            optimizer.step()
            if saves and step % EVERY == 0:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "bare.pt")
        return time.perf_counter() - began

    return epoch


def lightning(folder: str, threads: int, every: int | None) -> Callable[[], float]:
    """Lightning with nothing but its ModelCheckpoint."""
    import lightning as L
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint

    torch.set_num_threads(threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    one = trainer(Nowhere())
    split = one.train_batches.split
    loader = DataLoader(TensorDataset(split.inputs, split.targets), BATCH, shuffle=True)  # type: ignore[attr-defined]

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = one.weights

        def training_step(self, batch: Any, index: int) -> Any:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=True)

    class Clock(Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.began

    module, off = Module(), dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)

    def epoch() -> float:
        clock = Clock()
        keep = [ModelCheckpoint(folder, every_n_train_steps=every, save_on_train_epoch_end=False)] if every else []
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            runner = L.Trainer(
                max_epochs=1, accelerator="cpu", callbacks=[clock, *keep], enable_checkpointing=bool(keep), **off
            )
            runner.fit(module, loader)
        return clock.seconds

    return epoch


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
        cases: dict[str, Callable[[], float]] = {
            "dlrun": lambda: epoch(never),
            "dlrun, saving": lambda: epoch(saving),
            "bare loop": bare(Path(path), saves=False),
            "bare loop, saving": bare(Path(path), saves=True),
            "Lightning": Elsewhere(lightning, path, args.threads, None),
            "Lightning, saving": Elsewhere(lightning, path, args.threads, EVERY),
        }
        seconds = interleaved(cases, args.rounds)
        error = writer.close()
        size = folder.last.stat().st_size
    if error is not None:
        raise error
    rows = []
    for name, taken in seconds.items():
        without = name.partition(",")[0]
        stall = statistics.median(a - b for a, b in zip(taken, seconds[without], strict=True)) / (STEPS / EVERY)
        rows.append((name, statistics.median(taken), ratio(seconds, name, without), 1000 * stall))
    header = ("", "seconds an epoch", "to never saving", "ms a save")
    report("checkpoints", header, rows, state_mb=round(size / 1e6, 1), steps=STEPS, every=EVERY)


if __name__ == "__main__":
    main()
