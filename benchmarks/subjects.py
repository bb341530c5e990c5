"""What is measured: dlrun's own training, the loops people write, and Lightning, on the same model and data."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from dlrun.compose import compose, parse_arguments, plain
from dlrun.runfolder import RunFolder, new_run_id
from dlrun.session import Session
from dlrun.train import Job, _prepare

Data = tuple[Tensor, Tensor]


class Dlrun:
    """A run of the command line `words`, everything that they switch on included, an epoch at a time.

    The bar is drawn into nowhere: there is no terminal.
    """

    def __init__(self, words: Sequence[str], folder: Path):
        self.config = config = plain(compose(parse_arguments([*words, "trainer.max_epochs=1000000"])))
        run_id = new_run_id()
        path = folder / run_id
        path.mkdir()
        RunFolder(path).claim(run_id, ["dlrun", *words])
        RunFolder(path).write_config(config)
        self.session: Session = _prepare(config, RunFolder(path), Job(path, run_id, {}))
        self.trainer = self.session.trainer
        self.trainer.terminal.show_bar = True
        self.per_epoch = len(self.trainer.train_batches) // self.trainer.limits.accumulate
        self.trainer.limits = replace(self.trainer.limits, max_steps=0)

    def epoch(self) -> float:
        """Seconds of training in one more epoch: its steps, and all that is done at each of them or every few."""
        self.whole_epoch()
        return self.trained

    def whole_epoch(self) -> float:
        """The same with its evaluation, its row, and the copy of its checkpoint."""
        trainer = self.trainer
        trainer.limits = replace(trainer.limits, max_steps=trainer.limits.max_steps + self.per_epoch)
        before, began = trainer.progress.train_seconds, time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            trainer.fit()
        self.trained = trainer.progress.train_seconds - before
        return time.perf_counter() - began

    def close(self) -> None:
        self.session.writer.close()
        self.session.trackers.finish({"exit_code": 0, "status": "finished"})


def temporary() -> tempfile.TemporaryDirectory[str]:
    """Where runs may write; their lines are kept off the terminal."""
    logging.getLogger("dlrun").setLevel(logging.ERROR)
    return tempfile.TemporaryDirectory()


def floor(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Data]) -> Callable[[], float]:
    """The bare step on batches that are already in memory, prepared: nothing can be faster."""

    def epoch() -> float:
        model.train()
        began = time.perf_counter()
        for inputs, targets in batches:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        return time.perf_counter() - began

    return epoch


def indexing(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, batch_size: int, prepare: Callable[[Tensor], Tensor]
) -> Callable[[], float]:
    """The bare loop of somebody who knows: a permutation, batches by index, nothing else."""
    inputs, targets = data

    def epoch() -> float:
        model.train()
        began = time.perf_counter()
        for chosen in torch.randperm(len(targets)).split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(prepare(inputs[chosen])), targets[chosen]).backward()
            optimizer.step()
        return time.perf_counter() - began

    return epoch


def usual(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Any) -> Callable[[], float]:
    """The loop that most people write: a DataLoader, tqdm with the loss behind it at every step."""

    def epoch() -> float:
        model.train()
        began = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            bar = tqdm(loader)
            for inputs, targets in bar:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                loss.backward()
                optimizer.step()
                bar.set_postfix(loss=loss.item())
        return time.perf_counter() - began

    return epoch


class Elsewhere:
    """A case in a process of its own, so that what it imports costs the others nothing.

    Once `lightning` is imported, a bare step of a tiny net takes 1.5 times as long, 180 µs become 285.
    """

    def __init__(self, make: Callable[..., Callable[[], float]], *args: Any):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, args), daemon=True)
        self.process.start()

    def __call__(self) -> float:
        self.pipe.send(None)
        seconds: float = self.pipe.recv()
        return seconds


def _serve(pipe: Connection, make: Callable[..., Callable[[], float]], args: tuple[Any, ...]) -> None:
    epoch = make(*args)
    with contextlib.suppress(EOFError):
        while True:
            pipe.recv()
            pipe.send(epoch())


def lightning(model: nn.Module, data: Data, batch_size: int, threads: int, folder: str, quiet: bool) -> Elsewhere:
    """Lightning's Trainer for an epoch at a time; `quiet` has no logger, bar, checkpoint or summary."""
    return Elsewhere(_lightning, model, data, batch_size, threads, folder, quiet)


def _lightning(
    model: nn.Module, data: Data, batch_size: int, threads: int, folder: str, quiet: bool
) -> Callable[[], float]:
    import lightning as L
    from lightning.pytorch.callbacks import Callback

    torch.set_num_threads(threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    loader = DataLoader(TensorDataset(*data), batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Data, index: int) -> Tensor:
            inputs, targets = batch
            loss = F.cross_entropy(self.model(inputs), targets)
            if not quiet:
                self.log("train/loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            return optimizer

    class Clock(Callback):
        """The time between the first batch and the last, without what surrounds an epoch."""

        def on_train_epoch_start(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.began

    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    module = Module()

    def epoch() -> float:
        clock = Clock()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            trainer = L.Trainer(
                max_epochs=1, accelerator="cpu", default_root_dir=folder, callbacks=[clock], **(off if quiet else {})
            )
            trainer.fit(module, loader)
        return clock.seconds

    return epoch
