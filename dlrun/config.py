"""The config, typed and checked. Every key of `conf/` is a field here or an option of a registered builder."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from dlrun.errors import UserError
from dlrun.registry import Count, Index, NonNegative, Positive, Seed, Share, check_options, check_value

# As in Lightning: a whole number counts batches, a fraction is a share of them, null is all.
Limit = Count | Annotated[float, Gt(0), Le(1)]
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
EMADecay = Annotated[float, Gt(0), Lt(1)]


# What leaves a training what it is, up to the step that is reached, and its result comparable: a resume may change it.
MAY_CHANGE = {
    *(f"trainer.{name}" for name in ("max_epochs", "max_steps", "max_time", "patience", "num_threads", "profile")),
    *(f"trainer.{name}" for name in ("checkpoint_every", "checkpoint_every_n_steps", "log_every_n_steps")),
    *(f"trainer.{name}" for name in ("on_nonfinite", "max_rollbacks", "on_oom", "enable_progress_bar")),
    *(f"data.{name}" for name in ("root", "file", "num_workers", "cache")),
    *("scheduler.total_steps", "device", "tags", "notes", "plugins", "plots"),
}


def may_change(key: str) -> bool:
    """Whether `key` (dotted) can be another in the middle of a run."""
    return key in MAY_CHANGE or key.partition(".")[0] == "tracking"


def duration(given: Any, key: str) -> float:
    """Seconds in "8h", "1h30min" or "2d 90s"; None is for ever. Raises UserError for anything else."""
    if given is None:
        return math.inf
    text = str(given)
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(d|h|min|s)", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if re.fullmatch(r"(\s*\d+(?:\.\d+)?\s*(d|h|min|s))+\s*", text) is None or not 0 < seconds < math.inf:
        raise UserError(f"{key}: expected a time > 0 such as 90s, 10min, 8h, 1h30min or 2d, got {given!r}")
    return seconds


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """conf/trainer: how long, how, and how closely watched."""

    max_epochs: Count | None = None
    max_steps: Count | None = None
    accumulate_grad_batches: Count = 1
    gradient_clip_val: Positive | None = None
    ema_decay: EMADecay | None = None
    freeze: dict[str | int, Index] | None = None  # YAML reads the name of a Sequential's part as a number
    monitor: str = "val/acc"
    mode: Literal["min", "max"] | None = None
    patience: Count | None = None
    min_delta: NonNegative = 0.0
    tta: Literal["none", "flip", "flip_shift"] = "none"
    check_val_every_n_epoch: Count = 1
    max_time: Any = None  # a duration
    checkpoint_every_n_steps: Count | None = None
    checkpoint_every: Any = "10min"
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    max_rollbacks: Count = 3
    on_oom: Literal["stop", "halve"] = "stop"
    log_every_n_steps: Count = 50
    limit_train_batches: Limit | None = None
    limit_val_batches: Limit | None = None
    limit_test_batches: Limit | None = None
    overfit_batches: Limit | None = None
    fast_dev_run: bool | Count = False
    compile: bool | Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = False
    compile_region: Literal["auto", "model", "blocks"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    deterministic: bool = False
    num_threads: Annotated[int, Ge(1), Le(1024)] | None = None  # far too many end the process, without a word
    enable_progress_bar: bool = True
    profile: bool = False

    def __post_init__(self) -> None:
        if self.max_epochs is None and self.max_steps is None:
            raise UserError("trainer.max_epochs: set it or trainer.max_steps; both are null")
        for key in ("max_time", "checkpoint_every"):
            duration(getattr(self, key), f"trainer.{key}")
        if self.overfit_batches is not None and self.limit_train_batches is not None:
            raise UserError("trainer.limit_train_batches: trainer.overfit_batches says already how many; set one")
        if self.min_delta and self.patience is None:
            raise UserError(f"trainer.min_delta: {self.min_delta} does nothing while trainer.patience is null")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What all datasets share; a dataset's own options stand beside it in `Config.dataset`."""

    root: str
    batch_size: Count
    eval_batch_size: Count | None = None
    num_workers: Index | Literal["auto"] = "auto"
    val_fraction: Share = 0.1
    split_seed: Seed = 0
    limit: Count | None = None


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """conf/augment: a list of albumentations transforms, who does them, and mixing."""

    transforms: list[Any]
    backend: Literal["albumentations", "tensor"] = "albumentations"
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """What every optimizer has; its own options stand beside it in `Config.optimizer`."""

    l1: NonNegative = 0.0
    bias_lr_scale: Positive = 1.0
    bias_weight_decay: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What every scheduler has; its own options stand beside it in `Config.scheduler`."""

    warmup_steps: Index = 0
    warmup_epochs: NonNegative = 0
    total_steps: Count | None = None

    def __post_init__(self) -> None:
        if self.warmup_steps and self.warmup_epochs:
            raise UserError(
                "scheduler.warmup_epochs: set it or scheduler.warmup_steps, not both; "
                f"got {self.warmup_epochs} and {self.warmup_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """conf/tracking/wandb: Weights & Biases."""

    project: str = "dlrun"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    log_model: bool = False
    log_report: bool = False
    init_timeout: Positive = 30.0


@dataclass(frozen=True, kw_only=True)
class TensorboardConfig:
    """conf/tracking/tensorboard: has no options."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """conf/tracking: what is not null is on."""

    wandb: WandbConfig | None = None
    tensorboard: TensorboardConfig | None = None


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """What `dlrun compress` did to a run's net: it writes this into the config of the run that it makes.

    `parent` is the id of the run that was compressed, `amount` the share that was asked to go. `shapes` has those
    tensors of a net pruned by structure that are smaller than what the registry builds; `sparse` says that zeros among
    the weights stay zero in a training. Both go on to whatever is made of a pruned run. A training of such a run begins
    with checkpoints/initial.pt in its own folder, and `init_from` is null.
    """

    method: Literal["prune_unstructured", "prune_structured", "quantize_dynamic", "quantize_static", "qat"]
    parent: str
    amount: Share | None = None
    shapes: dict[str, list[Count]] = field(default_factory=dict)
    sparse: bool = False


@dataclass(frozen=True, kw_only=True)
class Named:
    """A registered builder's name, and the options that will be held against its signature."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run, whole."""

    seed: Seed
    device: Literal["auto", "cpu", "cuda", "mps"]
    init_from: str | None = None
    plugins: list[str]
    tags: list[str]
    notes: str | None
    plots: bool = True
    model: Named
    data: DataConfig
    dataset: Named
    augment: AugmentConfig
    task: Named
    optimizer: Named
    optimization: OptimizerConfig
    scheduler: Named
    schedule: SchedulerConfig
    precision: Named
    trainer: TrainerConfig
    tracking: TrackingConfig
    compression: CompressionConfig | None = None


def parse(config: Mapping[str, Any]) -> Config:
    """Check a resolved config, as Hydra composed it, and give it its types.

    Raises UserError for an unknown or missing key, a wrong type, or a value out of range. Names and options of
    builders are checked where they are built.
    """
    groups = ("model", "data", "augment", "task", "optimizer", "scheduler", "precision", "trainer", "tracking")
    for group in groups:
        if not isinstance(config.get(group), Mapping):
            raise UserError(f"{group}: expected a config group, got {config.get(group)!r}")
    compression = config.get("compression")
    if compression is not None and not isinstance(compression, Mapping):
        raise UserError(f"compression: expected what dlrun compress writes, got {compression!r}")
    plain = {key: value for key, value in config.items() if key not in (*groups, "compression")}
    optimization, optimizer = _split(config["optimizer"], OptimizerConfig, "optimizer")
    data, dataset = _split(config["data"], DataConfig, "data")
    schedule, scheduler = _split(config["scheduler"], SchedulerConfig, "scheduler")
    parts: dict[str, Any] = {
        "model": _named(config["model"], "model"),
        "data": data,
        "dataset": _named(dataset, "data"),
        "augment": _typed(config["augment"], AugmentConfig, "augment"),
        "task": _named(config["task"], "task"),
        "optimizer": _named(optimizer, "optimizer"),
        "optimization": optimization,
        "scheduler": _named(scheduler, "scheduler"),
        "schedule": schedule,
        "precision": _named(config["precision"], "precision"),
        "trainer": _typed(config["trainer"], TrainerConfig, "trainer"),
        "tracking": _tracking(config["tracking"]),
        "compression": None if compression is None else _typed(compression, CompressionConfig, "compression"),
    }
    check_options(_plain, plain, "")
    return Config(**plain, **parts)


def _plain(
    *,
    seed: Seed,
    device: Literal["auto", "cpu", "cuda", "mps"],
    init_from: str | None = None,
    plugins: list[str],
    tags: list[str],
    notes: str | None,
    plots: bool = True,
) -> None:
    """The keys of the top level that aren't groups."""


def _typed(options: Mapping[str, Any], cls: type[Any], key: str) -> Any:
    check_options(cls, options, key)
    return cls(**options)


def _split(options: Mapping[str, Any], cls: type[Any], key: str) -> tuple[Any, dict[str, Any]]:
    """The options that `cls` has as an object, and the rest."""
    shared = {name: value for name, value in options.items() if name in cls.__dataclass_fields__}
    return _typed(shared, cls, key), {name: value for name, value in options.items() if name not in shared}


def _named(options: Mapping[str, Any], key: str) -> Named:
    check_value(options.get("name"), str, f"{key}.name")
    return Named(name=options["name"], options={name: value for name, value in options.items() if name != "name"})


def _tracking(options: Mapping[str, Any]) -> TrackingConfig:
    check_options(_trackers, options, "tracking")
    kinds = {"wandb": WandbConfig, "tensorboard": TensorboardConfig}
    chosen = {
        name: _typed(value, kinds[name], f"tracking.{name}") for name, value in options.items() if value is not None
    }
    return TrackingConfig(**chosen)


def _trackers(*, wandb: dict[str, Any] | None = None, tensorboard: dict[str, Any] | None = None) -> None:
    """The trackers there are."""
