"""From the config to the objects of a training: the only room that sees both."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from dlrun.allocator import keep_freed_memory
from dlrun.compiling import asked, compiled
from dlrun.config import Config, duration
from dlrun.data.augment import Augment
from dlrun.data.loader import Batches
from dlrun.data.prepare import Mix, preparation
from dlrun.data.source import DataOptions, Source, Splits, limited
from dlrun.data.tensor_augment import TensorAugment
from dlrun.data.tuning import Staff
from dlrun.ema import EMA
from dlrun.errors import UserError, choices, memory_for
from dlrun.evaluator import Evaluator
from dlrun.freezing import Freezing
from dlrun.initialization import initialize_from_data
from dlrun.optim import L1, set_biases
from dlrun.precision import Precision
from dlrun.profiler import Unwatched
from dlrun.progress import Limits
from dlrun.registry import datasets, models, optimizers, precisions, schedules, tasks
from dlrun.schedules import Clock, Schedule
from dlrun.spec import DataSpec
from dlrun.tasks import Classification
from dlrun.tracking import Tracker
from dlrun.tracking.terminal import Terminal
from dlrun.trainer import Trainer
from dlrun.transfer import Transfer, transfer
from dlrun.tta import checked
from dlrun.writer import CheckpointWriter

DEFAULT_THREADS = torch.get_num_threads()  # before any run of this process has changed it


@dataclass
class Run:
    """A run, built and ready, but not begun: nothing is written yet."""

    spec: DataSpec
    splits: Splits
    device: torch.device
    parts: dict[str, Any]  # of the Trainer
    limits: Limits
    test_batches: Batches
    transfer: Transfer | None  # what came of `init_from`

    def close(self) -> None:
        """End the loader processes; what is left of the run may still be looked at."""
        for batches in (self.parts["train_batches"], self.parts["val_batches"], self.test_batches):
            batches.workers.close()

    def trainer(self, tracker: Tracker, terminal: Terminal, writer: CheckpointWriter, profiler: Unwatched) -> Trainer:
        return Trainer(
            **self.parts, limits=self.limits, tracker=tracker, terminal=terminal, writer=writer, profiler=profiler
        )


def build(config: Config) -> Run:
    """Build everything a training needs, in the order in which mistakes are cheap to find.

    Raises UserError for whatever can't be honoured.
    """
    options = config.trainer
    seed_everything(config.seed, options.deterministic)
    torch.set_num_threads(options.num_threads or DEFAULT_THREADS)
    device = choose_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    precision = precisions.build(config.precision.name, config.precision.options, device)
    source = build_source(config)
    spec = source.spec
    compilation = asked(
        options.compile,
        options.compile_region,
        device,
        varies=spec.modality == "text",
        halves=options.on_oom == "halve",
        accumulates=options.accumulate_grad_batches > 1,
    )
    model = build_model(config, spec)
    transferred = None if config.init_from is None else transfer(model, Path(config.init_from).expanduser(), spec)
    model.to(device)
    channels_last = _channels_last(options.channels_last, model, spec)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare = preparation(spec, device, channels_last)
    augment = _augment(config, spec, device, prepare)
    mix = _mix(config, spec)

    with memory_for("data"):
        splits = _limit_and_check(source.load(), config, spec)
    train, val, test = _batches(config, splits, device, prepare, augment, mix)
    taken = () if transferred is None else transferred.taken
    initialize_from_data(model, splits.train, prepare, taken)
    counts = torch.bincount(splits.train.targets, minlength=spec.num_outputs)
    task = tasks.build(config.task.name, config.task.options, spec, counts).to(device)
    mode = _mode(options.monitor, options.mode, task)

    clock = build_clock(config, len(train))
    freezing = None if options.freeze is None else Freezing(model, options.freeze)
    if freezing is not None:
        freezing.begin_epoch(0)  # what is never trained has no place in the optimizer
    optimizer = _optimizer(config, model, precision)
    called = model
    if compilation is not None:
        called = compiled(model, compilation, next(train.epoch(0)), task, precision)
    ema = None if options.ema_decay is None else EMA(model, options.ema_decay)
    return Run(
        spec=spec,
        splits=splits,
        device=device,
        parts={
            "model": called,
            "weights": model,
            "task": task,
            "optimizer": optimizer,
            "schedule": build_schedule(config, clock, optimizer.param_groups[0]["lr"], mode),
            "precision": precision,
            "train_batches": train,
            "val_batches": val,
            "evaluator": Evaluator(
                called, task, precision, ema, tta=checked(options.tta, spec), halves=options.on_oom == "halve"
            ),
            "ema": ema,
            "freezing": freezing,
            "l1": L1(optimizer, config.optimization.l1, model) if config.optimization.l1 else None,
        },
        limits=Limits(
            max_steps=clock.total_steps,
            max_epochs=math.ceil(clock.total_steps / clock.steps_per_epoch),
            accumulate=options.accumulate_grad_batches,
            clip_norm=options.gradient_clip_val,
            eval_every=options.check_val_every_n_epoch,
            log_every=1 if options.fast_dev_run else options.log_every_n_steps,
            monitor=options.monitor,
            mode=mode,
            patience=None if options.fast_dev_run else options.patience,
            min_delta=options.min_delta,
            max_seconds=duration(options.max_time, "trainer.max_time"),
            save_every=options.checkpoint_every_n_steps,
            save_every_seconds=duration(options.checkpoint_every, "trainer.checkpoint_every"),
            on_nonfinite=options.on_nonfinite,
            max_rollbacks=options.max_rollbacks,
            on_oom=options.on_oom,
        ),
        test_batches=test,
        transfer=transferred,
    )


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed every global generator. `deterministic` also refuses operations that have no repeatable form."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic != torch.are_deterministic_algorithms_enabled():  # else it would import torch's whole compiler
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def choose_device(name: str) -> torch.device:
    """`auto` is the best there is; a device that isn't there is refused."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, available in there.items() if available))
    if not there[name]:
        available = ", ".join(device for device, yes in there.items() if yes)
        raise UserError(f"device: '{name}' isn't available on this machine; available: {available}")
    return torch.device(name)


def build_source(config: Config) -> Source:
    """The dataset, described but not yet read where that can wait."""
    data = config.data
    common = DataOptions(Path(data.root), data.val_fraction, data.split_seed, data.limit)
    source: Source = datasets.build(config.dataset.name, config.dataset.options, common)
    return source


def build_model(config: Config, spec: DataSpec) -> nn.Module:
    """The model that fits the data."""
    model: nn.Module = models.build(config.model.name, config.model.options, spec)
    if any(is_lazy(p) for p in model.parameters()):  # a plugin's LazyLinear takes its size from the first batch
        with torch.no_grad():
            model.eval()(example(spec))
    return model


def example(spec: DataSpec) -> torch.Tensor:
    """A batch of one that has the shape of the data."""
    return torch.ones(1, *spec.shape, dtype=torch.int64 if spec.modality == "text" else torch.float32)


def _augment(
    config: Config, spec: DataSpec, device: torch.device, prepare: Callable[[torch.Tensor], torch.Tensor]
) -> Augment | TensorAugment | None:
    if not config.augment.transforms or config.trainer.overfit_batches is not None:
        return None
    if spec.modality != "image":
        raise UserError(
            f"augment: transforms are for images, and {config.dataset.name} is {spec.modality}; set augment=none"
        )
    channels, height, width = spec.shape
    if config.augment.backend == "tensor":
        return TensorAugment(config.augment.transforms, config.seed, (height, width, channels), device, prepare)
    augment = Augment(config.augment.transforms, config.seed)
    augment.check_shape((height, width, channels))
    return augment


def _mix(config: Config, spec: DataSpec) -> Mix | None:
    augment = config.augment
    if (not augment.mixup and not augment.cutmix) or config.trainer.overfit_batches is not None:
        return None
    if spec.modality == "text":
        raise UserError(
            f"augment.{'mixup' if augment.mixup else 'cutmix'}: words can't be blended; "
            f"set it to 0 for {config.dataset.name}"
        )
    if augment.cutmix and spec.modality != "image":
        raise UserError(
            f"augment.cutmix: is for images, and {config.dataset.name} is {spec.modality}; "
            "set it to 0 or take augment.mixup"
        )
    return Mix(augment.mixup, augment.cutmix, spec.num_outputs, config.seed)


def _limit_and_check(splits: Splits, config: Config, spec: DataSpec) -> Splits:
    limit, seed = config.data.limit, config.data.split_seed
    splits = Splits(*(limited(split, limit, seed) for split in (splits.train, splits.val, splits.test)))
    for name in ("train", "val", "test"):
        if len(getattr(splits, name)) == 0:
            raise UserError(f"data: the {name} split of {config.dataset.name} is empty")
    if len(splits.train.targets.unique()) < 2:
        raise UserError(
            f"data: all {len(splits.train)} training samples have one class; there is nothing to tell apart"
        )
    return splits


def _batches(
    config: Config,
    splits: Splits,
    device: torch.device,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    augment: Augment | TensorAugment | None,
    mix: Mix | None,
) -> tuple[Batches, Batches, Batches]:
    data, options = config.data, config.trainer
    eval_size = data.eval_batch_size or 4 * data.batch_size  # no gradients to keep: there is room for more
    overfit = options.overfit_batches is not None
    staff = Staff(data.num_workers, device, measures=not options.fast_dev_run)
    on_host = augment if isinstance(augment, Augment) else None
    split, workers = staff.assign(splits.train, on_host)
    train = Batches(
        split,
        data.batch_size,
        prepare,
        device,
        shuffle_seed=None if overfit else config.seed,
        augment=on_host,
        device_augment=augment if isinstance(augment, TensorAugment) else None,
        mix=mix,
        workers=workers,
        tuner=staff.tuner if workers is staff.workers else None,
    )
    if overfit:  # the same few batches are trained on and validated on
        train.limit = _batch_limit(options.overfit_batches, len(train), "overfit_batches")
        seen = min(train.limit * data.batch_size, len(splits.train))
        splits = Splits(splits.train, splits.train.subset(range(seen)), splits.test)
    split, workers = staff.assign(splits.val)
    val = Batches(split, eval_size, prepare, device, workers=workers)
    split, workers = staff.assign(splits.test)
    test = Batches(split, eval_size, prepare, device, workers=workers)
    for name, batches in (("train", train), ("val", val), ("test", test)):
        option = f"limit_{name}_batches"
        limit = int(options.fast_dev_run) or getattr(options, option)
        if limit is not None:
            batches.limit = min(_batch_limit(limit, len(batches), option), len(batches))
    return train, val, test


def _batch_limit(limit: float | None, batches: int, option: str) -> int:
    assert limit is not None
    count = limit if isinstance(limit, int) else int(limit * batches)
    if count == 0:
        raise UserError(f"trainer.{option}: {limit} of {batches} batches is none; raise it")
    return int(count)


def build_schedule(config: Config, clock: Clock, lr: float, mode: str) -> Schedule:
    """The learning rate over the training, or over `scheduler.total_steps` of it."""
    horizon = replace(clock, total_steps=config.schedule.total_steps or clock.total_steps)
    if clock.warmup_steps >= horizon.total_steps:
        key = "warmup_steps" if config.schedule.warmup_steps else "warmup_epochs"
        owner = "scheduler.total_steps is" if config.schedule.total_steps else "the training has only"
        raise UserError(f"scheduler.{key}: {clock.warmup_steps} steps of warm-up, but {owner} {horizon.total_steps}")
    schedule: Schedule = schedules.build(config.scheduler.name, config.scheduler.options, horizon, lr, mode)
    return schedule


def _optimizer(config: Config, model: nn.Module, precision: Precision) -> Optimizer:
    optimizer: Optimizer = optimizers.build(config.optimizer.name, config.optimizer.options, model)
    shared = config.optimization
    set_biases(optimizer, model, shared.bias_lr_scale, shared.bias_weight_decay)
    adapted = precision.adapt(model, optimizer, config.seed)
    if shared.l1 and adapted is not optimizer:
        raise UserError(
            f"optimizer.l1: {shared.l1} would be lost in the rounding of bfloat16 gradients; "
            "set it to 0 or take precision=bf16"
        )
    return adapted


def build_clock(config: Config, batches: int) -> Clock:
    """Epochs become optimizer steps here, and nowhere else."""
    options = config.trainer
    per_epoch = math.ceil(batches / options.accumulate_grad_batches)
    if options.fast_dev_run:
        return Clock(per_epoch, per_epoch)
    by_epochs = math.inf if options.max_epochs is None else options.max_epochs * per_epoch
    total = int(min(by_epochs, math.inf if options.max_steps is None else options.max_steps))
    warmup = config.schedule.warmup_steps or round(config.schedule.warmup_epochs * per_epoch)
    return Clock(total, per_epoch, warmup)


def _mode(monitor: str, given: str | None, task: Classification) -> Literal["min", "max"]:
    """Which way the monitored metric is better; a `trainer.mode` that says otherwise would keep the worst epoch."""
    monitored = [f"{split}/{name}" for split in ("train", "val") for name in task.metrics]
    if monitor not in monitored:
        raise UserError(f"trainer.monitor: unknown metric '{monitor}'{choices(monitor, monitored)}")
    mode = task.metrics[monitor.partition("/")[2]]
    if given not in (None, mode):
        raise UserError(f"trainer.mode: expected '{mode}' or null, since that is the better {monitor}, got '{given}'")
    return mode


def _channels_last(option: bool | str, model: nn.Module, spec: DataSpec) -> bool:
    """On by default for convolutions on images: 1.2 to 1.4 times as fast on a CPU, and what tensor cores want."""
    convolutions = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if option is True and spec.modality != "image":
        raise UserError(f"trainer.channels_last: is for images, and the data is {spec.modality}; set it to auto")
    if option is True and not convolutions:
        raise UserError("trainer.channels_last: this model has no convolution; set it to auto")
    return convolutions if option == "auto" else bool(option)
