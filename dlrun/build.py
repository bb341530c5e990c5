"""From the config to the objects of a training: the only room that sees both."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from dlrun.compiling import asked, compiled
from dlrun.config import CompressionConfig, Config, TrainerConfig, duration
from dlrun.data.prepare import preparation
from dlrun.dataparallel import DataParallel
from dlrun.distributed import Ranks
from dlrun.ema import EMA
from dlrun.errors import UserError, choices
from dlrun.evaluator import Evaluator
from dlrun.freezing import Freezing
from dlrun.groups import L1, set_biases
from dlrun.initialization import initialize_from_data
from dlrun.inputs import Inputs, build_inputs, build_source
from dlrun.machine import seed_everything, settle, take_own_gpu
from dlrun.models.zoo import weights_from_checkpoint
from dlrun.precision import Precision
from dlrun.profiler import Unwatched
from dlrun.progress import Limits
from dlrun.registry import models, optimizers, precisions, schedules, tasks
from dlrun.schedules import Clock, Schedule
from dlrun.spec import DataSpec
from dlrun.tasks import Classification
from dlrun.tracking import Tracker
from dlrun.tracking.terminal import Terminal
from dlrun.trainer import Trainer
from dlrun.transfer import Transfer, transfer
from dlrun.tta import checked
from dlrun.writer import CheckpointWriter


@dataclass
class Run:
    """A run, built and ready, but not begun: nothing is written yet."""

    spec: DataSpec
    inputs: Inputs
    device: torch.device
    parts: dict[str, Any]  # of the Trainer
    limits: Limits
    transfer: Transfer | None  # what came of `init_from`

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.parts["train_batches"]) // self.limits.accumulate)

    def trainer(self, tracker: Tracker, terminal: Terminal, writer: CheckpointWriter, profiler: Unwatched) -> Trainer:
        return Trainer(
            **self.parts, limits=self.limits, tracker=tracker, terminal=terminal, writer=writer, profiler=profiler
        )


def build(config: Config, ranks: Ranks | None = None) -> Run:
    """Build everything a training needs, in the order in which mistakes are cheap to find.

    Of several processes, `ranks`, each builds it for its part of the batches. Raises UserError for whatever can't be
    honoured.
    """
    options = config.trainer
    seed_everything(config.seed, options.deterministic)
    if ranks is not None:
        refuse_unshared(config, ranks)
        take_own_gpu(config.device, ranks.local_rank)
    device = settle(config.device, options.num_threads)
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
    last = channels_last(options.channels_last, model, spec)
    if last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare = preparation(spec, device, last)
    with nullcontext() if ranks is None else ranks.one_first():  # it downloads, and fills caches
        inputs = build_inputs(config, source, device, prepare)
    train, splits = inputs.train, inputs.splits
    taken = () if transferred is None else transferred.taken
    initialize_from_data(model, splits.train, prepare, taken)
    sparsity = None
    if config.compression is not None and config.compression.sparse:
        from dlrun.compression.sparsity import Sparsity

        sparsity = Sparsity(model)
    counts = torch.bincount(splits.train.targets, minlength=spec.num_outputs)
    task = tasks.build(config.task.name, config.task.options, spec, counts).to(device)
    mode = mode_of(options.monitor, options.mode, task)

    clock = build_clock(config, len(train))
    freezing = None if options.freeze is None else Freezing(model, options.freeze)
    if freezing is not None:
        freezing.begin_epoch(0)  # what is never trained has no place in the optimizer
    optimizer = build_optimizer(config, model, precision)
    called = model
    if compilation is not None:
        called = compiled(model, compilation, next(train.epoch(0)), task, precision)
    ema = None if options.ema_decay is None else EMA(model, options.ema_decay)
    shared = None
    if ranks is not None:
        shared = DataParallel(ranks, model, config.seed)
        inputs.share(ranks.rank, ranks.size)
    return Run(
        spec=spec,
        inputs=inputs,
        device=device,
        parts={
            "model": called,
            "weights": model,
            "task": task,
            "optimizer": optimizer,
            "schedule": build_schedule(config, clock, optimizer.param_groups[0]["lr"], mode),
            "precision": precision,
            "train_batches": train,
            "val_batches": inputs.val,
            "evaluator": Evaluator(
                *(called, task, precision, ema),
                tta=checked(options.tta, spec),
                halves=options.on_oom == "halve",
                shared=shared,
            ),
            "shared": shared,
            "ema": ema,
            "freezing": freezing,
            "sparsity": sparsity,
            "l1": L1(optimizer, config.optimization.l1, model) if config.optimization.l1 else None,
        },
        limits=build_limits(options, clock, mode),
        transfer=transferred,
    )


def build_limits(options: TrainerConfig, clock: Clock, mode: Literal["min", "max"]) -> Limits:
    """How far, how often, and what is done about accidents."""
    return Limits(
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
    )


def refuse_unshared(config: Config, ranks: Ranks) -> None:
    """Raises UserError for what several processes can't honour yet."""
    options, cache = config.trainer, config.dataset.options.get("cache")
    unshared = {
        f"trainer.compile={options.compile}": options.compile is not False,
        "trainer.on_oom=halve": options.on_oom == "halve",
        f"precision={config.precision.name}": config.precision.name not in ("fp32", "tf32", "bf16"),
        f"augment.mixup={config.augment.mixup}": config.augment.mixup > 0,
        f"augment.cutmix={config.augment.cutmix}": config.augment.cutmix > 0,
        f"data.cache={cache}": cache == "ram",
        "a net that is quantised (qat)": config.compression is not None and config.compression.method == "qat",
    }
    for what, asked_for in unshared.items():
        if asked_for:
            raise UserError(f"{what}: isn't supported in {ranks.size} processes yet; start one, or leave it out")
    if config.data.batch_size < 2 * ranks.size:
        raise UserError(
            f"data.batch_size: is for all {ranks.size} processes together, each of which needs two samples of a batch; "
            f"expected at least {2 * ranks.size}, got {config.data.batch_size}"
        )


def build_model(config: Config, spec: DataSpec) -> nn.Module:
    """The model that fits the data, as `dlrun compress` has left it if this is a compressed run."""
    with nullcontext() if config.compression is None else weights_from_checkpoint():  # which a compressed run has
        model: nn.Module = models.build(config.model.name, config.model.options, spec)
    if any(is_lazy(p) for p in model.parameters()):  # a plugin's LazyLinear takes its size from the first batch
        with torch.no_grad():
            model.eval()(example(spec))
    return model if config.compression is None else _compressed(model, config.compression, spec)


def _compressed(model: nn.Module, compression: CompressionConfig, spec: DataSpec) -> nn.Module:
    if compression.shapes:
        from dlrun.compression.structure import reshape

        reshape(model, compression.shapes)
    if compression.method == "qat":
        from dlrun.compression.fake_quantization import prepare

        prepare(model, spec)
    return model


def example(spec: DataSpec) -> torch.Tensor:
    """A batch of one that has the shape of the data."""
    return torch.ones(1, *spec.shape, dtype=torch.int64 if spec.modality == "text" else torch.float32)


def build_schedule(config: Config, clock: Clock, lr: float, mode: str) -> Schedule:
    """The learning rate over the training, or over `scheduler.total_steps` of it."""
    horizon = replace(clock, total_steps=config.schedule.total_steps or clock.total_steps)
    if clock.warmup_steps >= horizon.total_steps:
        key = "warmup_steps" if config.schedule.warmup_steps else "warmup_epochs"
        owner = "scheduler.total_steps is" if config.schedule.total_steps else "the training has only"
        raise UserError(f"scheduler.{key}: {clock.warmup_steps} steps of warm-up, but {owner} {horizon.total_steps}")
    schedule: Schedule = schedules.build(config.scheduler.name, config.scheduler.options, horizon, lr, mode)
    return schedule


def build_optimizer(config: Config, model: nn.Module, precision: Precision) -> Optimizer:
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


def mode_of(monitor: str, given: str | None, task: Classification) -> Literal["min", "max"]:
    """Which way the monitored metric is better; a `trainer.mode` that says otherwise would keep the worst epoch."""
    monitored = [f"{split}/{name}" for split in ("train", "val") for name in task.metrics]
    if monitor not in monitored:
        raise UserError(f"trainer.monitor: unknown metric '{monitor}'{choices(monitor, monitored)}")
    mode = task.metrics[monitor.partition("/")[2]]
    if given not in (None, mode):
        raise UserError(f"trainer.mode: expected '{mode}' or null, since that is the better {monitor}, got '{given}'")
    return mode


def channels_last(option: bool | str, model: nn.Module, spec: DataSpec) -> bool:
    """On by default for convolutions on images: 1.2 to 1.4 times as fast on a CPU, and what tensor cores want."""
    convolutions = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if option is True and spec.modality != "image":
        raise UserError(f"trainer.channels_last: is for images, and the data is {spec.modality}; set it to auto")
    if option is True and not convolutions:
        raise UserError("trainer.channels_last: this model has no convolution; set it to auto")
    return convolutions if option == "auto" else bool(option)
